package bpf_test

import (
	"testing"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/sixpn/sixpn/bpf"
)

// A service whose limits are those of all hosts goes by what the hosts agreed on.
func TestShares(t *testing.T) {
	const soft, hard = 3, 5
	shared := func(s *bpf.RouterService) { s.Flags, s.SoftLimit, s.HardLimit = 2, soft, hard }
	for _, c := range []struct {
		name    string
		service func(*bpf.RouterService)
		share   bpf.RouterShare // of the near backend
		near    uint32          // of 7 flows
		far     uint32          // whose share is 2
		wanted  uint32
	}{
		{"a share above the soft limit", shared, bpf.RouterShare{Limit: 4}, 4, 2, 1},
		{"a share above the hard limit", shared, bpf.RouterShare{Limit: 9}, 5, 2, 0},
		{"no share", shared, bpf.RouterShare{}, 0, 2, 1},
		{"flows elsewhere", shared, bpf.RouterShare{Limit: 1, Elsewhere: 2}, 1, 2, 1},
		{"flows elsewhere up to the soft limit", shared, bpf.RouterShare{Limit: 4, Elsewhere: 3}, 4, 2, 1},
		{"a soft limit only", func(s *bpf.RouterService) { s.Flags, s.SoftLimit = 2, soft }, bpf.RouterShare{Elsewhere: 1}, 4, 3, 0},
		{"limits of this host alone", func(s *bpf.RouterService) { s.SoftLimit, s.HardLimit = soft, hard }, bpf.RouterShare{}, 4, 3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			flycastWorld(w)
			far := w.addBackend(w.spare, backendPort, 1)
			service := w.regions(1, []uint32{streamBackend}, []uint32{far})
			c.service(&service)
			w.put(w.Services, serviceKey(protocolTCP, vipPort), service)
			w.put(w.Shares, uint32(streamBackend), c.share)
			w.put(w.Shares, far, bpf.RouterShare{Limit: 2})
			loads := w.loads(7)
			if loads[streamBackend-1] != c.near || loads[far-1] != c.far {
				t.Errorf("the backends have %d and %d flows, want %d and %d", loads[streamBackend-1], loads[far-1], c.near, c.far)
			}
			var share bpf.RouterShare
			must(t, w.Shares.Lookup(uint32(streamBackend), &share))
			if share.Wanted != c.wanted || share.Limit != c.share.Limit || share.Elsewhere != c.share.Elsewhere {
				t.Errorf("the share is %+v, want it as it was, and wanted %d", share, c.wanted)
			}
			w.requireLedger(t)
		})
	}
}

// Go is told once that a share is wanted, until it has looked.
func TestShareIsWantedOnce(t *testing.T) {
	w := newWorld(t)
	flycastWorld(w)
	service := w.service(1, streamBackend)
	service.Flags, service.HardLimit = 2, 1
	w.put(w.Services, serviceKey(protocolTCP, vipPort), service)
	reader, err := ringbuf.NewReader(w.Wants)
	must(t, err)
	defer func() { must(t, reader.Close()) }()
	w.loads(3)
	w.put(w.Shares, uint32(streamBackend), bpf.RouterShare{}) // Go has looked
	w.fire(synFrom(w, 2000))
	reader.SetDeadline(time.Unix(1, 0)) // what is there is read, and nothing waited for
	events := 0
	for {
		if _, err := reader.Read(); err != nil {
			break
		}
		events++
	}
	if events != 2 {
		t.Errorf("there are %d events, want one before Go looked and one after", events)
	}
}
