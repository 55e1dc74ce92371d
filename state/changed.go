package state

import (
	"errors"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sixpn/sixpn"
)

// A partial Store watches many ranges, and etcd says in no way up to which revision all
// of them have delivered: requested progress overtakes events before 3.4.25 and 3.5.8. So
// each transaction also writes, for every range that it changes, a key that says only by
// its own revision when that was. The Store compares them with what its watches have
// delivered, see verify.
const keyChanged = root + "changed/"

const changedHosts = keyChanged + "hosts"

func changedNetwork(n sixpn.Network) string   { return keyChanged + "networks/" + hex8(n) }
func changedVIPs(n sixpn.Network) string      { return keyChanged + "vips/" + hex8(n) }
func changedHostMachines(h sixpn.Host) string { return keyChanged + "host-machines/" + hex8(h) }
func changedAppVIPs(app string) string        { return keyChanged + "app-vips/" + app }

// changedBy is the keys to write beside another one.
func changedBy(key string) []string {
	rest, ok := strings.CutPrefix(key, root)
	if !ok {
		return nil
	}
	parts := strings.Split(rest, "/")
	switch {
	case key == keyFleet, key == keyGeneration, parts[0] == "hosts":
		return []string{changedHosts}
	case len(parts) < 3:
		return nil
	case parts[0] == "networks" && parts[2] == "vips": // which both ranges have
		return []string{keyChanged + "networks/" + parts[1], keyChanged + "vips/" + parts[1]}
	case parts[0] == "networks":
		return []string{keyChanged + "networks/" + parts[1]}
	case parts[0] == "index": // of a host's Machines, or of an app's addresses
		return []string{keyChanged + parts[1] + "/" + parts[2]}
	}
	return nil
}

// commit writes these keys with what a transaction writes, if the store takes that: a full
// one takes removals only, and one of the operator's no more writes than it is told. What
// is written without them is as durable; a partial Store has it a moment later than Reach
// says, see torn.
func (t *transaction) commit() (*clientv3.TxnResponse, error) {
	response, err := t.client.Txn(t.ctx).If(t.guards()...).Then(withChanged(t.writes)...).Commit()
	if full := errors.Is(err, rpctypes.ErrNoSpace) && !slices.ContainsFunc(t.writes, clientv3.Op.IsPut); full || errors.Is(err, rpctypes.ErrTooManyOps) {
		return t.client.Txn(t.ctx).If(t.guards()...).Then(t.writes...).Commit()
	}
	return response, err
}

// withChanged adds the keys of what is written, but for one that is written already.
func withChanged(writes []clientv3.Op) []clientv3.Op {
	known := map[string]bool{}
	for _, op := range writes {
		known[string(op.KeyBytes())] = true
	}
	all := slices.Clip(writes)
	for _, op := range writes {
		for _, key := range changedBy(string(op.KeyBytes())) {
			if !known[key] {
				known[key] = true
				all = append(all, clientv3.OpPut(key, ""))
			}
		}
	}
	return all
}
