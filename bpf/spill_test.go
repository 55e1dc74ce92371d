package bpf_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sixpn/sixpn/bpf"
)

// regions is a service of several groups of backends, nearest first.
func (w *world) regions(id uint32, groups ...[]uint32) bpf.RouterService {
	w.t.Helper()
	service := w.service(id, groups[0]...)
	for _, group := range groups[1:] {
		w.put(w.Maglev, w.region, uint32(len(group)))
		w.region++
		w.service(id, group...)
	}
	service.Length = w.region - service.Offset
	return service
}

// Each new flow goes to the nearest region that has a backend below its soft limit, then
// to the nearest that has one below its hard limit, and then nowhere.
func TestSpill(t *testing.T) {
	w := newWorld(t)
	flycastWorld(w)
	second, third := w.addBackend(w.spare, backendPort, 1), w.addBackend(w.client, backendPort, 1)
	fourth := w.addBackend(w.server, backendPort, 1)
	regions := [][]uint32{{streamBackend}, {second, second}, {third}, {fourth, fourth, fourth}}
	for _, c := range []struct {
		name       string
		soft, hard uint32
		regions    int
		filled     []int // the region of each flow; -1: refused
	}{
		{"no limits", 0, 0, 2, []int{0, 0, 0, 0}},
		{"soft limit", 2, 0, 2, []int{0, 0, 1, 1, 0, 0, 0}},
		{"hard limit", 0, 2, 2, []int{0, 0, 1, 1, -1, -1}},
		{"both", 1, 2, 2, []int{0, 1, 0, 1, -1}},
		{"soft limit above the hard one", 3, 1, 2, []int{0, 1, -1}},
		{"the same limit", 1, 1, 3, []int{0, 1, 2, -1}},
		{"four regions", 1, 2, 4, []int{0, 1, 2, 3, 0, 1, 2, 3, -1}},
		{"one region", 1, 2, 1, []int{0, 0, -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			for key := range w.keys(w.Flows) {
				must(t, w.Flows.Delete(key))
			}
			for _, m := range []*member{w.client, w.server} {
				w.quota(m.network, 0, 1000)
				w.quota(m.network, m.machine, 1000)
			}
			for _, region := range regions {
				w.put(w.BackendLoad, region[0], bpf.RouterLoad{Generation: 7})
			}
			service := w.regions(1, regions[:c.regions]...)
			service.SoftLimit, service.HardLimit = c.soft, c.hard
			w.put(w.Services, serviceKey(protocolTCP, vipPort), service)
			live := make([]uint32, len(regions))
			for i, want := range c.filled {
				w.fire(synFrom(w, uint16(1000+i)))
				if want >= 0 {
					live[want]++
				}
				var got []uint32
				for _, region := range regions {
					got = append(got, w.load(region[0]).Live)
				}
				if !slices.Equal(got, live) {
					t.Fatalf("after %d flows the regions have %v, want %v", i+1, got, live)
				}
			}
		})
	}
}

// What stands behind a region that says nothing of farther ones is another service's.
func TestRegionEnds(t *testing.T) {
	for name, change := range map[string]func(*bpf.RouterService){
		"no length":              func(s *bpf.RouterService) { s.Length = 0 },
		"the length of a region": func(s *bpf.RouterService) { s.Length = s.Prime },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			flycastWorld(w)
			service := w.regions(1, []uint32{streamBackend}, []uint32{w.addBackend(w.spare, backendPort, 1)})
			service.HardLimit = 1
			change(&service)
			w.put(w.Services, serviceKey(protocolTCP, vipPort), service)
			if loads := w.loads(3); fmt.Sprint(loads) != "[1 0 0 0]" {
				t.Errorf("the backends have %v flows, want 1 at the first only", loads)
			}
		})
	}
}
