package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sixpn/sixpn"
	"github.com/sixpn/sixpn/state"
)

// A simulated fleet has these, whatever its size. The first tenants have half of their
// Machines on the first host, so that this one always has the same to do; of every other
// tenant all are on one host.
const (
	machinesOfHost   = 100
	machinesOfTenant = 10
	tenantsOfFirst   = 2 * machinesOfHost / machinesOfTenant
)

// One transaction may hold this much; the store's own limits are higher.
const (
	batchWrites = 8000
	batchBytes  = 6 << 20
)

// simulation is a fleet that exists in a real store only. One of each kind of record is
// made by the store's own ways, and all others are copies with other names and numbers:
// so they are what they would be, and need no transaction each.
type simulation struct {
	embedded *state.Embedded
	first    sixpn.Host // the host that is looked at; the others follow it
	machine  string     // id of the model
	key      string     // of the model's mesh

	hostModel, tenantModel, machineModel []*mvccpb.KeyValue
	rest                                 []*mvccpb.KeyValue // what is there besides, once

	meshKeys       []string // of the hosts
	hosts, tenants int      // there are
	batch          []clientv3.Op
	bytes          int
}

// The names of the models, which must not be part of anything else in a record.
const (
	modelHost    = "model-host"
	modelSession = "model-session"
	modelToken   = "model-token"
	modelOrg     = "model-org"
	modelApp     = "model-app"
	modelMachine = "model-machine"
	modelNetwork = sixpn.Network(1) // the first that there is
)

func newSimulation(ctx context.Context, dir string) (s *simulation, err error) {
	s = &simulation{}
	if s.embedded, err = state.StartEmbedded(ctx, state.EmbeddedConfig{Dir: filepath.Join(dir, "store"), Log: quiet}); err != nil {
		return nil, err
	}
	if err := s.makeModels(ctx); err != nil {
		return nil, errors.Join(err, s.embedded.Close())
	}
	return s, nil
}

var quiet = slog.New(slog.DiscardHandler)

func newMeshKey() (string, error) {
	key, err := wgtypes.GenerateKey()
	return key.PublicKey().String(), err
}

func (s *simulation) makeModels(ctx context.Context) (err error) {
	store, err := state.Open(ctx, s.embedded.Client(), quiet)
	if err != nil {
		return err
	}
	if s.key, err = newMeshKey(); err != nil {
		return err
	}
	host, _, err := store.JoinHost(ctx, state.NewHost{Name: modelHost, Token: modelToken, Region: "iad", PublicKey: s.key, Endpoint: "192.0.2.1:51821"})
	if err != nil {
		return err
	}
	s.first = host.ID
	if _, _, err := store.CreateOrg(ctx, modelOrg, modelOrg); err != nil {
		return err
	}
	if _, _, err := store.CreateApp(ctx, modelApp, modelOrg, ""); err != nil {
		return err
	}
	machine, _, err := store.CreateMachine(ctx, state.NewMachine{App: modelApp, Name: modelMachine, Host: host.ID, Config: state.MachineConfig{
		Init:     state.Init{Exec: []string{"/usr/bin/server", "--listen", "[::]:8080"}},
		Services: []state.Service{{Protocol: "tcp", InternalPort: 8080, Ports: []state.ServicePort{{Port: 80}}}},
	}})
	if err != nil {
		return err
	}
	s.machine = machine.ID
	started := func(m *state.Machine) error { m.State = state.Started; return nil }
	if _, _, err := store.UpdateMachine(ctx, machine.ID, started); err != nil {
		return err
	}
	if _, _, err := store.AllocateVIP(ctx, modelApp, "", ""); err != nil {
		return err
	}
	return s.takeModels(ctx)
}

// takeModels sorts what the models left in the store. The first host and the first tenant
// are copies like all others, over the models.
func (s *simulation) takeModels(ctx context.Context) error {
	all, err := s.embedded.Client().Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	var removals []clientv3.Op
	for _, kv := range all.Kvs {
		key, value := string(kv.Key), string(kv.Value)
		switch {
		case strings.Contains(key, "/changed/"): // nothing changes in copies
			removals = append(removals, clientv3.OpDelete(key))
		case strings.Contains(key, "/counters/") || strings.HasSuffix(key, "/fleet"):
			s.rest = append(s.rest, kv)
		case strings.Contains(key, s.machine) || value == s.machine:
			s.machineModel = append(s.machineModel, kv)
		case strings.Contains(key, "/hosts/") || strings.Contains(key, "/host-keys/"):
			s.hostModel = append(s.hostModel, kv)
		default:
			s.tenantModel = append(s.tenantModel, kv)
		}
	}
	for _, model := range [][]*mvccpb.KeyValue{s.machineModel, s.hostModel, s.tenantModel} {
		for _, kv := range model {
			removals = append(removals, clientv3.OpDelete(string(kv.Key)))
		}
	}
	// A host is alive without the lease that would have it end.
	s.hostModel = append(s.hostModel, &mvccpb.KeyValue{
		Key: []byte("/sixpn/v1/hosts/" + hex8(s.first) + "/alive"), Value: []byte(`{"session":"` + modelSession + `"}`),
	})
	_, err = s.embedded.Client().Txn(ctx).Then(removals...).Commit()
	return err
}

// grow writes more hosts and their Machines, until there are so many.
func (s *simulation) grow(ctx context.Context, hosts int) error {
	write := func(c copied) error {
		for i := range c.model {
			if err := s.put(ctx, c.key(i), c.value(i)); err != nil {
				return err
			}
		}
		return nil
	}
	for ; s.hosts < hosts; s.hosts++ {
		c, err := s.host(s.hosts)
		if err := errors.Join(err, write(c)); err != nil {
			return err
		}
	}
	for ; s.tenants < tenantsAmong(hosts); s.tenants++ {
		if err := write(s.tenant(s.tenants)); err != nil {
			return err
		}
		for i := range machinesOfTenant {
			if err := write(s.machineAt(s.tenants*machinesOfTenant + i)); err != nil {
				return err
			}
		}
	}
	return s.flush(ctx)
}

func tenantsAmong(hosts int) int { return hosts * machinesOfHost / machinesOfTenant }

func hex8[N ~uint32](n N) string { return fmt.Sprintf("%08x", uint32(n)) }

// copied is a model with other names. Where the number of a network is all of a value, it
// is that of this network.
type copied struct {
	model    []*mvccpb.KeyValue
	network  sixpn.Network
	replacer *strings.Replacer
}

func (c copied) key(i int) string { return c.replacer.Replace(string(c.model[i].Key)) }

func (c copied) value(i int) string {
	value := c.replacer.Replace(string(c.model[i].Value))
	if value == hex8(modelNetwork) {
		return hex8(c.network)
	}
	return value
}

// host is one of the fleet, from 0.
func (s *simulation) host(n int) (copied, error) {
	for len(s.meshKeys) <= n {
		key, err := newMeshKey()
		if err != nil {
			return copied{}, err
		}
		s.meshKeys = append(s.meshKeys, key)
	}
	id := s.first + sixpn.Host(n)
	return copied{s.hostModel, 0, strings.NewReplacer(
		modelHost, fmt.Sprintf("host-%d", n), modelToken, fmt.Sprintf("token-%d", n), modelSession, fmt.Sprintf("session-%d", n),
		s.key, s.meshKeys[n], hex8(s.first), hex8(id), fmt.Sprintf(`"id":%d,`, s.first), fmt.Sprintf(`"id":%d,`, id),
	)}, nil
}

// tenantNames are pairs of what is replaced and by what, for all that a tenant has.
func tenantNames(t int) (network sixpn.Network, names []string) {
	network = sixpn.Network(t + 1)
	return network, []string{
		modelOrg, fmt.Sprintf("org-%d", t), modelApp, fmt.Sprintf("app-%d", t),
		sixpn.VIPAddr(modelNetwork, 1).String(), sixpn.VIPAddr(network, 1).String(),
		"networks/" + hex8(modelNetwork), "networks/" + hex8(network),
		fmt.Sprintf(`"network":%d,`, modelNetwork), fmt.Sprintf(`"network":%d,`, network),
	}
}

// tenant is one without its Machines, from 0.
func (s *simulation) tenant(t int) copied {
	network, names := tenantNames(t)
	// In what a network says of itself it is called its id.
	names = append(names, fmt.Sprintf(`"id":%d,`, modelNetwork), fmt.Sprintf(`"id":%d,`, network))
	return copied{s.tenantModel, network, strings.NewReplacer(names...)}
}

// machineAt is one of all Machines, from 0: those of a tenant follow each other.
func (s *simulation) machineAt(number int) copied {
	t, i := number/machinesOfTenant, number%machinesOfTenant
	host := s.first + sixpn.Host(number/machinesOfHost)
	if t < tenantsOfFirst {
		host = s.first + sixpn.Host(i%2)
	}
	network, names := tenantNames(t)
	return copied{s.machineModel, network, strings.NewReplacer(append([]string{
		s.machine, fmt.Sprintf("%014x", 1<<40+number), modelMachine, fmt.Sprintf("machine-%d", i),
		"host-machines/" + hex8(s.first), "host-machines/" + hex8(host),
		fmt.Sprintf(`"host":%d,`, s.first), fmt.Sprintf(`"host":%d,`, host),
		`"number":1,`, fmt.Sprintf(`"number":%d,`, i+1),
	}, names...)...)}
}

func (s *simulation) put(ctx context.Context, key, value string) error {
	s.batch = append(s.batch, clientv3.OpPut(key, value))
	s.bytes += len(key) + len(value)
	if len(s.batch) < batchWrites && s.bytes < batchBytes {
		return nil
	}
	return s.flush(ctx)
}

func (s *simulation) flush(ctx context.Context) error {
	if len(s.batch) == 0 {
		return nil
	}
	_, err := s.embedded.Client().Txn(ctx).Then(s.batch...).Commit()
	s.batch, s.bytes = nil, 0
	return err
}

// check demands that everything can be read, and is as much as it should be.
func (s *simulation) check(snapshot *state.Snapshot) error {
	machines := s.hosts * machinesOfHost
	if len(snapshot.Hosts) != s.hosts || len(snapshot.Machines) != machines || len(snapshot.VIPs) != s.tenants || len(snapshot.Unreadable) > 0 {
		return fmt.Errorf("the simulated fleet has %d hosts, %d Machines and %d addresses, and %d records that cannot be read: expected %d, %d, %d and 0",
			len(snapshot.Hosts), len(snapshot.Machines), len(snapshot.VIPs), len(snapshot.Unreadable), s.hosts, machines, s.tenants)
	}
	seen := map[netip.Addr]bool{}
	for _, m := range snapshot.HostMachines(s.first) {
		seen[m.Addr()] = true
	}
	if len(seen) != machinesOfHost {
		return fmt.Errorf("the first host has Machines at %d addresses, expected %d", len(seen), machinesOfHost)
	}
	return nil
}
