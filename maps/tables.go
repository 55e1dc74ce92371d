package maps

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sixpn/sixpn/bpf"
)

// The kernel's names of the tables, as errors and Changes use them.
const (
	tablePorts        = bpf.RouterMapPortSlots
	tableMachines     = bpf.RouterMapMachineSlots
	tableHostPort     = bpf.RouterMapHostPort
	tableMesh         = bpf.RouterMapMeshDevice
	tableAllocations  = bpf.RouterMapAllocations
	tableVIPs         = bpf.RouterMapVips
	tableServices     = bpf.RouterMapServices
	tableRanges       = bpf.RouterMapServiceRanges
	tableMaglev       = bpf.RouterMapMaglev
	tableBackends     = bpf.RouterMapBackends
	tableBackendLoad  = bpf.RouterMapBackendLoad
	tableShares       = bpf.RouterMapShares
	tableFences       = bpf.RouterMapFences
	tableFenced       = bpf.RouterMapFenced
	tableQuotas       = bpf.RouterMapQuotas
	tablePortCounters = bpf.RouterMapPortCounters
	tablePortDrops    = bpf.RouterMapPortDrops
)

// DefaultGrace is far longer than a packet stays in the router, even where a CPU is
// held up by its hypervisor.
const DefaultGrace = 2 * time.Second

// Options are what Open needs beside the tables.
type Options struct {
	// Maglev spreads a service's backends over a region: for every position the
	// index of a backend in the argument, which is never empty. Required.
	Maglev func([]Backend) []uint32
	// Grace is how long a region or a backend that nothing points to any more is
	// left as it was. 0: DefaultGrace.
	Grace time.Duration
	// Now is the clock of the grace period. nil: time.Now.
	Now func() time.Time
	// AfterWrite, if set, is called after each single write to the kernel, with the
	// table's name; an error of it ends the Sync there.
	AfterWrite func(table string) error
	// PortRemoved and BackendFreed, if set, are told the last counts of what a Sync
	// has just removed, so that sums over all there ever were stay true. They must
	// not call the Tables.
	PortRemoved  func(PortCounts)
	BackendFreed func(BackendLoad)
}

// Tables are the tables of one router. Its methods may be called concurrently.
type Tables struct {
	maps    *bpf.RouterMaps
	options Options
	memory  *ebpf.Memory // of maglev
	shares  *ebpf.Memory // of shares

	mu           sync.Mutex
	known        bool   // letGo, highest and what is left are true of the kernel
	highest      uint32 // no backend was ever above this index
	letGo        []letGo
	leftPorts    map[uint32]bpf.RouterPort // as the last Sync left them; likewise:
	leftMachines map[bpf.RouterMachineKey]bpf.RouterMachine
	slotsRead    time.Time
	gone         map[uint32]time.Time               // backends flagged BACKEND_GONE, by index
	unused       map[bpf.RouterMachineKey]time.Time // unwanted quotas that nobody uses
	spreads      map[serviceKey][]spread            // what Maglev said last, by region
	seats        map[Seat]seat                      // of services with shared limits, as the last Sync left them
	ended        map[uint32]endedSeat               // elements that were theirs and are gone, by index
	void         map[uint32]bool                    // elements that the next Sync takes for gone
	used         map[string]uint32                  // elements in use after the last Sync that did end well, by table
}

// letGo is a region that no service points to any more, but a packet in flight may.
type letGo struct {
	span
	since time.Time
}

// Open reads and writes the tables of one loaded router. It keeps no reference that
// has to be closed; the maps stay the caller's.
func Open(tables *bpf.RouterMaps, options Options) (*Tables, error) {
	if options.Maglev == nil {
		return nil, errors.New("maps: Options.Maglev is missing: give the function that spreads backends over a region")
	}
	if options.Grace == 0 {
		options.Grace = DefaultGrace
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	memory, err := tables.Maglev.Memory()
	if err != nil {
		return nil, fmt.Errorf("maps: map table %q into memory: %w", tableMaglev, err)
	}
	shares, err := tables.Shares.Memory()
	if err != nil {
		return nil, fmt.Errorf("maps: map table %q into memory: %w", tableShares, err)
	}
	return &Tables{
		maps:    tables,
		options: options,
		memory:  memory,
		shares:  shares,
		gone:    map[uint32]time.Time{},
		unused:  map[bpf.RouterMachineKey]time.Time{},
		spreads: map[serviceKey][]spread{},
	}, nil
}

// Changes is what one Sync did.
type Changes struct {
	Writes  int            // single writes to the kernel
	Tables  map[string]int // the same by table
	Waiting int            // regions, backends and quotas that a later Sync frees
	Gone    int            // backends flagged gone: time for a pass over the flows
}

// writer makes the single writes of one Sync: all of them go through write.
type writer struct {
	ctx     context.Context
	after   func(table string) error
	changes Changes
	refused []*CapacityError
}

// write makes one write. A full table is a *CapacityError; every other error ends
// the Sync.
func (w *writer) write(table, what string, max uint32, do func() error) error {
	if err := w.ctx.Err(); err != nil {
		return fmt.Errorf("maps: stopped before writing %s to table %q: %w", what, table, err)
	}
	if err := do(); err != nil {
		// A hash table that is full says E2BIG, a trie ENOSPC.
		if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) || errors.Is(err, bpf.ErrSlotsFull) {
			return &CapacityError{Table: table, What: what, Max: max, Hint: hints[table]}
		}
		return fmt.Errorf("maps: write %s to table %q: %w", what, table, err)
	}
	w.changes.Writes++
	w.changes.Tables[table]++
	if w.after != nil {
		if err := w.after(table); err != nil {
			return fmt.Errorf("maps: stopped after writing %s to table %q: %w", what, table, err)
		}
	}
	return nil
}

// tolerate notes that a table was full, and lets the Sync go on.
func (w *writer) tolerate(err error) error {
	var full *CapacityError
	if errors.As(err, &full) {
		w.refused = append(w.refused, full)
		return nil
	}
	return err
}

// table is one keyed table with its content as it is in the kernel now.
type table[K, V comparable] struct {
	name  string
	max   uint32
	have  map[K]V
	store store[K, V]
}

// store is how a table is kept in the kernel.
type store[K, V comparable] interface {
	All() (map[K]V, error)
	Put(key K, value V, exists bool) error
	Delete(key K) error // no error if there is none
}

// read replaces have by what the kernel says.
func (h *table[K, V]) read() error {
	have, err := h.store.All()
	if err != nil {
		return fmt.Errorf("maps: read table %q: %w", h.name, err)
	}
	h.have = have
	return nil
}

// put writes an element unless it is there already.
func (h *table[K, V]) put(w *writer, what string, key K, value V) error {
	old, ok := h.have[key]
	if ok && old == value {
		return nil
	}
	return w.write(h.name, what, h.max, func() error {
		if err := h.store.Put(key, value, ok); err != nil {
			return err
		}
		h.have[key] = value
		return nil
	})
}

// remove deletes an element if it is there.
func (h *table[K, V]) remove(w *writer, what string, key K) error {
	if _, ok := h.have[key]; !ok {
		return nil
	}
	return w.write(h.name, what, h.max, func() error {
		if err := h.store.Delete(key); err != nil {
			return err
		}
		delete(h.have, key)
		return nil
	})
}

// crowded says whether a table of max elements cannot hold both what is in it and what
// is wanted: then what goes must go first.
func crowded[K, V comparable, W any](h *table[K, V], want map[K]W, max uint32) bool {
	together := uint32(len(h.have))
	for key := range want {
		if _, ok := h.have[key]; !ok {
			together++
		}
	}
	return together > max
}
