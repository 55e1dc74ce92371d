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

	hosts, tenants int // there are
	batch          []clientv3.Op
	bytes          int
}

// The names of the models, which must not be part of anything else in a record.
const (
	modelHost    = "model-host"
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
	for _, kv := range all.Kvs {
		key, value := string(kv.Key), string(kv.Value)
		switch {
		case strings.Contains(key, "/counters/") || strings.HasSuffix(key, "/fleet"):
		case strings.Contains(key, s.machine) || value == s.machine:
			s.machineModel = append(s.machineModel, kv)
		case strings.Contains(key, "/hosts/") || strings.Contains(key, "/host-keys/"):
			s.hostModel = append(s.hostModel, kv)
		default:
			s.tenantModel = append(s.tenantModel, kv)
		}
	}
	var removals []clientv3.Op
	for _, model := range [][]*mvccpb.KeyValue{s.machineModel, s.hostModel, s.tenantModel} {
		for _, kv := range model {
			removals = append(removals, clientv3.OpDelete(string(kv.Key)))
		}
	}
	_, err = s.embedded.Client().Txn(ctx).Then(removals...).Commit()
	return err
}

// grow writes more hosts and their Machines, until there are so many.
func (s *simulation) grow(ctx context.Context, hosts int) error {
	for ; s.hosts < hosts; s.hosts++ {
		if err := s.addHost(ctx, s.hosts); err != nil {
			return err
		}
	}
	for ; s.tenants < hosts*machinesOfHost/machinesOfTenant; s.tenants++ {
		if err := s.addTenant(ctx, s.tenants); err != nil {
			return err
		}
	}
	return s.flush(ctx)
}

func hex8[N ~uint32](n N) string { return fmt.Sprintf("%08x", uint32(n)) }

func (s *simulation) addHost(ctx context.Context, n int) error {
	id := s.first + sixpn.Host(n)
	key, err := newMeshKey()
	if err != nil {
		return err
	}
	names := []string{
		modelHost, fmt.Sprintf("host-%d", n), modelToken, fmt.Sprintf("token-%d", n), s.key, key,
		hex8(s.first), hex8(id), fmt.Sprintf(`"id":%d,`, s.first), fmt.Sprintf(`"id":%d,`, id),
	}
	if err := s.copy(ctx, s.hostModel, 0, names); err != nil {
		return err
	}
	// Without the lease that would have it end.
	alive := "/sixpn/v1/hosts/" + hex8(id) + "/alive"
	return s.put(ctx, alive, fmt.Sprintf(`{"session":"session-%d"}`, n))
}

func (s *simulation) addTenant(ctx context.Context, t int) error {
	network := sixpn.Network(t + 1)
	tenant := []string{
		modelOrg, fmt.Sprintf("org-%d", t), modelApp, fmt.Sprintf("app-%d", t),
		sixpn.VIPAddr(modelNetwork, 1).String(), sixpn.VIPAddr(network, 1).String(),
		"networks/" + hex8(modelNetwork), "networks/" + hex8(network),
		fmt.Sprintf(`"network":%d,`, modelNetwork), fmt.Sprintf(`"network":%d,`, network),
	}
	// In what a network says of itself it is called its id.
	ofNetwork := append(tenant, fmt.Sprintf(`"id":%d,`, modelNetwork), fmt.Sprintf(`"id":%d,`, network))
	if err := s.copy(ctx, s.tenantModel, network, ofNetwork); err != nil {
		return err
	}
	for i := range machinesOfTenant {
		number := t*machinesOfTenant + i
		host := s.first + sixpn.Host(number/machinesOfHost)
		if t < tenantsOfFirst {
			host = s.first + sixpn.Host(i%2)
		}
		names := append([]string{
			s.machine, fmt.Sprintf("%014x", 1<<40+number), modelMachine, fmt.Sprintf("machine-%d", i),
			"host-machines/" + hex8(s.first), "host-machines/" + hex8(host),
			fmt.Sprintf(`"host":%d,`, s.first), fmt.Sprintf(`"host":%d,`, host),
			`"number":1,`, fmt.Sprintf(`"number":%d,`, i+1),
		}, tenant...)
		if err := s.copy(ctx, s.machineModel, network, names); err != nil {
			return err
		}
	}
	return nil
}

// copy writes a model with other names: pairs of what is replaced and by what. Where the
// number of a network is all of a value, it is given.
func (s *simulation) copy(ctx context.Context, model []*mvccpb.KeyValue, network sixpn.Network, names []string) error {
	replacer := strings.NewReplacer(names...)
	for _, kv := range model {
		value := replacer.Replace(string(kv.Value))
		if value == hex8(modelNetwork) {
			value = hex8(network)
		}
		if err := s.put(ctx, replacer.Replace(string(kv.Key)), value); err != nil {
			return err
		}
	}
	return nil
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
