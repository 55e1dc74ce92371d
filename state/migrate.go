package state

import (
	"context"
	"errors"
	"time"

	"github.com/sixpn/sixpn"
)

// Migration is the way of a Machine to another host. While Error is empty it is under
// way: until its host has stopped it and hands it over Machine.Host is From, then To,
// and it is over, and forgotten, once it has started there or shall not run. One that
// failed stays for people to read, and the Machine is at From.
type Migration struct {
	From  sixpn.Host `json:"from"`
	To    sixpn.Host `json:"to"`
	Error string     `json:"error,omitempty"`
	At    time.Time  `json:"at"` // when it was asked for
}

// Leaving is whether a Machine's host is to hand it over once it does not run.
func (m Machine) Leaving() bool {
	return m.Migration != nil && m.Migration.Error == "" && m.Host == m.Migration.From
}

// Arriving is whether a Machine was handed over and has not started since.
func (m Machine) Arriving() bool {
	return m.Migration != nil && m.Migration.Error == "" && m.Host == m.Migration.To
}

// MigrateMachine asks for a move of a Machine to another host, where it gets another
// address. From that moment on one that runs is stopping, out of DNS and all tables.
// Its host stops it and hands it over (HandOver), the other one starts it; what stood
// still does so afterwards. To the host that it is on it is a way back, as long as it
// was not handed over.
//
// It is refused with kind Conflict while another holds a lease of the Machine, as by
// ChangeMachine, for a Machine that is only attached, and when either host is lost or
// the new one drained.
func (s *Store) MigrateMachine(ctx context.Context, id, nonce string, to sixpn.Host) (Machine, int64, error) {
	var record Record[Machine]
	revision, err := s.transact(ctx, id, "migrate machine "+id, func(t *transaction) error {
		var err error
		if record, err = t.machine(id); err != nil {
			return err
		}
		before := record.Value
		m := &record.Value
		if err := fence(*m, nonce, now()); err != nil {
			return err
		}
		switch {
		case m.Desired == Destroyed:
			return refuse(Conflict, "state", "the Machine %s is being destroyed: create another one on the other host", id)
		case m.Config.Attach != nil:
			return refuse(Conflict, "config.attach", "the Machine %s is only attached here, so nothing here can move it: detach it with `sixpn machine detach`, and attach it on the other host", id)
		case m.Arriving():
			return refuse(Conflict, "host", "the Machine %s has just come to host %v: wait until it has started there", id, m.Host)
		case to == m.Host && m.Leaving():
			m.Migration = nil
			return t.writeMachine(before, &record, sourceUser)
		case to == m.Host:
			return nil
		}
		if err := t.mustTake(to); err != nil {
			return err
		}
		if alive, _, err := t.get(keyAlive(m.Host)); err != nil {
			return err
		} else if alive == nil {
			return refuse(Conflict, "host", "host %v, which the Machine %s is on, is lost, so nobody can stop it there: bring that host back, or, if it is gone for good, remove it with `sixpn hosts remove --force` and create the Machine anew", m.Host, id)
		}
		m.Migration = &Migration{From: m.Host, To: to, At: now()}
		if m.ended() && m.Desired == Started {
			m.Desired = Stopped // it ended by itself, which its new host cannot know
		}
		restartMoved(m)
		return t.writeMachine(before, &record, sourceUser)
	})
	if err != nil {
		return Machine{}, 0, err
	}
	if revision == 0 {
		revision = record.ModRevision
	}
	return record.Value, revision, nil
}

// mustTake refuses a host that cannot take one more Machine.
func (t *transaction) mustTake(id sixpn.Host) error {
	host, err := t.host(id)
	if err != nil {
		return err
	}
	if host.Value.Draining {
		return refuse(Conflict, "host", "the host %s is drained and takes no new Machines: choose another host", host.Value.Name)
	}
	return t.mustReach(host.Value)
}

// mustReach refuses a host that is lost, or full.
func (t *transaction) mustReach(host Host) error {
	alive, _, err := t.get(keyAlive(host.ID))
	if err != nil {
		return err
	}
	if alive == nil {
		return refuse(Conflict, "host", "the host %s is lost: its agent does not answer; choose another host", host.Name)
	}
	n, err := t.count(indexHostMachines(host.ID))
	if err != nil {
		return err
	}
	if n >= MaxHostMachines {
		return refuse(Exhausted, "host", "the host %s has %d Machines, the most it takes: choose another host", host.Name, n)
	}
	return nil
}

// HandOver is for the agent of a host that has stopped a Machine which is leaving: in
// one transaction the Machine is the other host's, with another number. If that host
// cannot take it any more, the migration has failed, which is no error, and the Machine
// stays. Like UpdateOwnMachine it is refused when the Machine is another host's.
func (s *Store) HandOver(ctx context.Context, host sixpn.Host, id string) (Machine, int64, error) {
	return s.rehost(ctx, host, id, "hand over machine "+id, func(t *transaction, m *Machine) error {
		if !m.Leaving() || m.Desired == Destroyed {
			return refuse(Conflict, "host", "the Machine %s is not to leave host %v", id, host)
		}
		err := t.mustTake(m.Migration.To)
		var refused *Error
		if errors.As(err, &refused) && refused.Kind != Unavailable {
			m.Migration.Error = refused.Message
			return nil
		}
		if err != nil {
			return err
		}
		return t.moveTo(m, m.Migration.To)
	})
}

// HandBack is for the agent of a host to which a Machine was handed over and on which
// it cannot be started: it goes back where it came from, whether that is drained or
// not, and starts there. If that host is lost the Machine stays, which is no error.
func (s *Store) HandBack(ctx context.Context, host sixpn.Host, id, why string) (Machine, int64, error) {
	return s.rehost(ctx, host, id, "hand back machine "+id, func(t *transaction, m *Machine) error {
		if !m.Arriving() {
			return refuse(Conflict, "host", "the Machine %s did not come to host %v by a migration", id, host)
		}
		from, err := t.host(m.Migration.From)
		if err == nil {
			err = t.mustReach(from.Value)
		}
		var refused *Error
		if errors.As(err, &refused) && refused.Kind != Unavailable {
			m.Migration.Error = why + "; and it cannot go back: " + refused.Message
			return nil
		}
		if err != nil {
			return err
		}
		m.Migration.Error = why
		return t.moveTo(m, m.Migration.From)
	})
}

func (s *Store) rehost(ctx context.Context, host sixpn.Host, id, doing string, change func(*transaction, *Machine) error) (Machine, int64, error) {
	var record Record[Machine]
	revision, err := s.transact(ctx, id, doing, func(t *transaction) error {
		var before Machine
		var err error
		if before, record, err = t.machineTwice(id); err != nil {
			return err
		}
		if err := t.mustOwn(host, record.Value); err != nil {
			return err
		}
		if err := change(t, &record.Value); err != nil {
			return err
		}
		arrive(&record.Value)
		return t.writeMachine(before, &record, sourceHost)
	})
	if err != nil {
		return Machine{}, 0, err
	}
	return record.Value, revision, nil
}

// moveTo gives a Machine that does not run another host, whose agent starts it if it
// is wanted started.
func (t *transaction) moveTo(m *Machine, to sixpn.Host) error {
	host, err := t.host(to)
	if err != nil {
		return err
	}
	number, err := t.number(counterMachines(m.Network), 1)
	if err != nil {
		return err
	}
	t.remove(indexMachine(m.Host, m.ID))
	t.put(indexMachine(to, m.ID), "")
	m.Host, m.Number, m.Region = to, sixpn.Machine(number), host.Value.Region
	m.Checks, m.Relayed, m.Restarts = nil, nil, 0
	switch {
	case m.Desired == Started:
		m.State, m.Message = Starting, ""
	case m.State != Created && m.State != Failed:
		m.State = Stopped
	}
	return nil
}

// arrive forgets a migration whose Machine has come to its end: it has started there,
// has run at least, or is at rest.
func arrive(m *Machine) {
	ran := m.State == Stopped && m.Pending == ""
	if m.Arriving() && (m.State == Started || ran || m.Desired != Started && m.ended()) {
		m.Migration = nil
	}
}
