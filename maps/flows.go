package maps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn/bpf"
)

// Timeouts are how long a flow stays after its last packet, by state.
type Timeouts struct {
	SYN         time.Duration // TCP, not answered yet
	Established time.Duration // TCP
	Closing     time.Duration // TCP, after both FINs or a RST; also a flow whose backend is gone
	UDP         time.Duration
}

// DefaultTimeouts follow RFC 5382 and RFC 4787, which let no flow end earlier: 2 hours
// and 4 minutes, and 5 minutes.
var DefaultTimeouts = Timeouts{
	SYN:         30 * time.Second,
	Established: 2*time.Hour + 4*time.Minute,
	Closing:     30 * time.Second,
	UDP:         5 * time.Minute,
}

// Flows pages through the flow table and has each page judged by the expiry program,
// in the kernel: what is over goes, what has lost its backend is marked. It is for one
// goroutine.
type Flows struct {
	flows   *ebpf.Map
	expiry  *ebpf.Map
	program *ebpf.Program
	memory  *ebpf.Memory // of expiry_keys
	cursor  ebpf.MapBatchCursor
	keys    []bpf.RouterFlowKey
	values  []bpf.RouterFlow
	buffer  []byte
}

// OpenFlows sets the timeouts. program is the router's sixpn_expire.
func OpenFlows(tables *bpf.RouterMaps, program *ebpf.Program, timeouts Timeouts) (*Flows, error) {
	memory, err := tables.ExpiryKeys.Memory()
	if err != nil {
		return nil, fmt.Errorf("maps: map table %q into memory: %w", bpf.RouterMapExpiryKeys, err)
	}
	pass, ok, err := lookup[bpf.RouterExpiryPass](tables.Expiry, bpf.RouterMapExpiry, uint32(0))
	if err != nil || !ok {
		return nil, err
	}
	pass.TimeoutSyn = uint64(timeouts.SYN)
	pass.TimeoutEstablished = uint64(timeouts.Established)
	pass.TimeoutClosing = uint64(timeouts.Closing)
	pass.TimeoutUdp = uint64(timeouts.UDP)
	if err := tables.Expiry.Put(uint32(0), pass); err != nil {
		return nil, fmt.Errorf("maps: write the timeouts to table %q: %w", bpf.RouterMapExpiry, err)
	}
	limit := tables.ExpiryKeys.MaxEntries()
	return &Flows{
		flows:   tables.Flows,
		expiry:  tables.Expiry,
		program: program,
		memory:  memory,
		keys:    make([]bpf.RouterFlowKey, limit),
		values:  make([]bpf.RouterFlow, limit),
		buffer:  make([]byte, 0, limit*uint32(tables.ExpiryKeys.ValueSize())),
	}, nil
}

// Capacity is how many flows the table can hold.
func (f *Flows) Capacity() int { return int(f.flows.MaxEntries()) }

// PageSize is how many flows one Page judges at most.
func (f *Flows) PageSize() int { return len(f.keys) }

// Rewind makes the next Page the first.
func (f *Flows) Rewind() { f.cursor = ebpf.MapBatchCursor{} }

// Page judges the next flows. done says that it was the last page; the next one is the
// first again. A flow that comes while a pass is under way may be left to the next.
func (f *Flows) Page() (judged int, done bool, err error) {
	count, err := f.flows.BatchLookup(&f.cursor, f.keys, f.values, nil)
	if done = errors.Is(err, ebpf.ErrKeyNotExist); done {
		f.Rewind()
	} else if err != nil {
		f.Rewind()
		return 0, false, fmt.Errorf("maps: read table %q: %w", bpf.RouterMapFlows, err)
	}
	if count == 0 {
		return 0, done, nil
	}
	if f.buffer, err = binary.Append(f.buffer[:0], binary.NativeEndian, f.keys[:count]); err != nil {
		return 0, false, fmt.Errorf("maps: encode flow keys: %w", err)
	}
	if _, err := f.memory.WriteAt(f.buffer, 0); err != nil {
		return 0, false, fmt.Errorf("maps: write table %q: %w", bpf.RouterMapExpiryKeys, err)
	}
	if _, err := f.program.Run(&ebpf.RunOptions{Context: bpf.RouterExpiryRequest{Count: uint32(count)}}); err != nil {
		return 0, false, fmt.Errorf("maps: run the expiry program: %w", err)
	}
	return count, done, nil
}

// FlowCounts is what became of the flows that were judged since the tables were made.
type FlowCounts struct {
	Seen    uint64 // judged; a flow counts in every pass
	Expired uint64
	Gone    uint64 // found without their backend
}

// Counts reads what was done so far.
func (f *Flows) Counts() (FlowCounts, error) {
	pass, _, err := lookup[bpf.RouterExpiryPass](f.expiry, bpf.RouterMapExpiry, uint32(0))
	return FlowCounts{pass.Seen, pass.Expired, pass.Gone}, err
}
