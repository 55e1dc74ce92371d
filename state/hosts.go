package state

import (
	"context"

	"github.com/sixpn/sixpn"
)

// RegisterHost is JoinHost without a token.
func (s *Store) RegisterHost(ctx context.Context, name, region string, known sixpn.Host) (Host, int64, error) {
	return s.JoinHost(ctx, NewHost{Name: name, Region: region, Known: known})
}

// NewHost is what a host says of itself when its agent starts.
type NewHost struct {
	Name   string
	Region string
	Known  sixpn.Host // the number it was given before, 0 if it knows of none
	// Token is random, made once and kept by the host before it first registers. It
	// finds the host's number again when the agent was killed between the registration
	// and keeping its answer.
	Token string
}

// JoinHost gives a host its number, for good. With a known number it asserts the
// record again: the name or region may have changed meanwhile, the number never.
func (s *Store) JoinHost(ctx context.Context, h NewHost) (Host, int64, error) {
	if err := ValidateHostName(h.Name); err != nil {
		return Host{}, 0, err
	}
	if err := ValidateRegion(h.Region); err != nil {
		return Host{}, 0, err
	}
	var record Record[Host]
	created := now()
	revision, err := s.transact(ctx, creating, "register host "+h.Name, func(t *transaction) error {
		owner, err := t.owner(nameHost(h.Name))
		if err != nil {
			return err
		}
		number, found := h.Known, false
		if number == 0 {
			number = sixpn.Host(owner)
		}
		if number != 0 {
			if record, found, err = load[Host](t, keyHost(number)); err != nil {
				return err
			}
		}
		own := found && (h.Known != 0 || h.Token != "" && record.Value.Token == h.Token)
		switch {
		case !own && h.Known != 0:
			return refuse(NotFound, "host", "the store knows no host %v, which this host says it is: the state directory belongs to another fleet, or the store was lost; start with an empty state directory to join as a new host", h.Known)
		case owner != 0 && (!own || owner != uint32(number)):
			return refuse(Conflict, "host", "the name %q is that of host %v: give this host another name", h.Name, sixpn.Host(owner))
		case !own:
			record = Record[Host]{Value: Host{CreatedAt: created, Token: h.Token}}
			n, err := t.number(counterHosts, uint32(sixpn.FirstHost))
			if err != nil {
				return err
			}
			record.Value.ID = sixpn.Host(n)
		}
		before := record.Value
		record.Value.Name, record.Value.Region = h.Name, h.Region
		if record.Value == before {
			return nil
		}
		if before.Name != "" && before.Name != h.Name {
			t.remove(nameHost(before.Name))
		}
		if before.Name != h.Name {
			t.put(nameHost(h.Name), hex8(record.Value.ID))
		}
		return write(t, keyHost(record.Value.ID), record)
	})
	if err != nil {
		return Host{}, 0, err
	}
	if revision == 0 { // nothing was new
		revision = record.ModRevision
	}
	return record.Value, revision, nil
}
