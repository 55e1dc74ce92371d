package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// identity is who this host is, as its state directory remembers it. The token is
// written before the host first registers: should the agent be killed between the
// transaction and keeping its answer, the store finds the host again by it.
type identity struct {
	Token string     `json:"token"`
	Host  sixpn.Host `json:"host"`
	Name  string     `json:"name"` // as it first registered, for a host that is renamed
}

// registerTimeout is for the store, which may have lost its majority: then it answers
// nobody, and a client that has time asks again and again.
const registerTimeout = 5 * time.Second

// never is the end of what waits as long as the agent lives.
const never = 100 * 365 * 24 * time.Hour

// register finds out which host this is. A host that has its number already is who it
// was while the store is away; keepPresent registers it later.
func (a *agent) register(ctx context.Context) (state.Host, error) {
	known, err := readIdentity(a.config.identityPath())
	if err != nil {
		return state.Host{}, fmt.Errorf("read which host this is: %w", err)
	}
	was, found := a.store.Snapshot().Hosts[known.Host]
	if !found {
		return a.outlive(ctx, never)
	}
	host, err := a.outlive(ctx, registerTimeout)
	if err == nil || state.KindOf(err) != state.Unavailable {
		return host, err
	}
	a.unregistered = true
	a.log.Warn("the store is away: this host is who it was", "error", err)
	return was, nil
}

// outlive registers, and again while the lease of the address that this host had before is not
// over, each time within a limit. Whoever keeps that lease alive is another one, and is
// not outlived.
func (a *agent) outlive(ctx context.Context, limit time.Duration) (state.Host, error) {
	t := a.config.Timeouts
	end := time.Now().Add(t.HostExpiry + t.Heartbeat + leaseGrain)
	for waits := false; ; waits = true {
		limited, cancel := context.WithTimeout(ctx, limit)
		host, _, err := register(limited, a.config, a.store, a.meshKey(), a.certificateKey())
		cancel()
		if !state.AtWorkElsewhere(err) || time.Now().After(end) {
			return host, err
		}
		if !waits {
			a.log.Info("this host has another address than before: it waits until the lease of the old one is over", "at_most", time.Until(end).Round(time.Second), "because", err)
		}
		select {
		case <-time.After(t.Heartbeat):
		case <-ctx.Done():
			return state.Host{}, ctx.Err()
		}
	}
}

// leaseGrain is how much later than it says a lease may end: it has whole seconds, and the
// store looks at it twice a second.
const leaseGrain = 2 * time.Second

// register gives this host its number, the same one for good: its Machines'
// addresses have it in them. meshKey is empty without a mesh, certificateKey for a host
// that is alone. The store has the host's record, with all that, at the revision.
func register(ctx context.Context, c Config, store *state.Store, meshKey, certificateKey string) (host state.Host, revision int64, err error) {
	known, err := readIdentity(c.identityPath())
	if err != nil {
		return state.Host{}, 0, fmt.Errorf("read which host this is: %w", err)
	}
	if known.Token == "" {
		known.Token, known.Name = rand.Text(), c.HostName
		if err := writeIdentity(c.identityPath(), known); err != nil {
			return state.Host{}, 0, fmt.Errorf("remember which host this is: %w", err)
		}
	}
	join := state.NewHost{Name: known.Name, Region: c.Region, Known: known.Host, Token: known.Token, Version: c.Version, PublicKey: meshKey, CertificateKey: certificateKey}
	if at := c.underlay(); at.IsValid() {
		join.Endpoint, join.Mesh = at.String(), state.MeshMode(c.Mesh)
	}
	host, revision, err = store.JoinHost(ctx, join)
	if err != nil {
		if known.Host == 0 && state.KindOf(err) == state.Conflict && !state.AtWorkElsewhere(err) {
			os.Remove(c.identityPath()) // with another name it is to be tried again
		}
		return state.Host{}, 0, fmt.Errorf("register this host: %w", err)
	}
	if known.Host == host.ID {
		return host, revision, nil
	}
	known.Host = host.ID
	if err := writeIdentity(c.identityPath(), known); err != nil {
		return state.Host{}, 0, fmt.Errorf("remember which host this is: %w", err)
	}
	return host, revision, nil
}

// readIdentity returns the zero identity for a host that is new.
func readIdentity(path string) (known identity, err error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return identity{}, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &known)
	}
	return known, err
}

// writeIdentity leaves either the old file or the new one, durable.
func writeIdentity(path string, known identity) error {
	content, err := json.Marshal(known)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".host")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // not there any more when all went well
	_, err = file.Write(append(content, '\n'))
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
