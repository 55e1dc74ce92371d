package state

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn"
)

func TestHoldTogether(t *testing.T) {
	t.Parallel()
	const window = 10 * time.Second
	at := time.Unix(1000, 0)
	for name, row := range map[string]struct {
		hosts int                // numbered from 1
		ended map[sixpn.Host]int // seconds ago; every other one is alive
		held  []sixpn.Host       // before
		away  []sixpn.Host       // not alive, without an end that was seen
		want  []sixpn.Host
	}{
		"nobody":                                 {hosts: 3},
		"one of two":                             {hosts: 2, ended: map[sixpn.Host]int{1: 0}},
		"two of two":                             {hosts: 2, ended: map[sixpn.Host]int{1: 0, 2: 0}, want: []sixpn.Host{1, 2}},
		"one of three":                           {hosts: 3, ended: map[sixpn.Host]int{1: 0}},
		"two of three":                           {hosts: 3, ended: map[sixpn.Host]int{1: 0, 2: 0}, want: []sixpn.Host{1, 2}},
		"two of six":                             {hosts: 6, ended: map[sixpn.Host]int{1: 0, 2: 0}, want: []sixpn.Host{1, 2}},
		"two of seven":                           {hosts: 7, ended: map[sixpn.Host]int{1: 0, 2: 0}},
		"three of seven":                         {hosts: 7, ended: map[sixpn.Host]int{1: 0, 2: 0, 3: 0}, want: []sixpn.Host{1, 2, 3}},
		"a window apart":                         {hosts: 3, ended: map[sixpn.Host]int{1: 10, 2: 0}, want: []sixpn.Host{1, 2}},
		"more than a window apart":               {hosts: 3, ended: map[sixpn.Host]int{1: 11, 2: 0}},
		"held, one returns":                      {hosts: 3, held: []sixpn.Host{1, 2}, away: []sixpn.Host{2}, want: []sixpn.Host{2}},
		"held, all return":                       {hosts: 3, held: []sixpn.Host{1, 2}},
		"held, one is removed":                   {hosts: 1, held: []sixpn.Host{1, 2}, away: []sixpn.Host{1, 2}, want: []sixpn.Host{1}},
		"held, another one goes":                 {hosts: 9, held: []sixpn.Host{1, 2, 3}, away: []sixpn.Host{1, 2, 3}, ended: map[sixpn.Host]int{4: 0}, want: []sixpn.Host{1, 2, 3}},
		"never alive ones do not count as ended": {hosts: 3, away: []sixpn.Host{1, 2}, ended: map[sixpn.Host]int{3: 0}},
		"removed ones do not count":              {hosts: 1, ended: map[sixpn.Host]int{1: 0, 2: 0, 3: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			hosts, living, held, lost := map[sixpn.Host]Host{}, map[sixpn.Host]presence{}, map[sixpn.Host]bool{}, map[sixpn.Host]time.Time{}
			for h := range sixpn.Host(row.hosts) {
				hosts[h+1], living[h+1] = Host{ID: h + 1}, presence{}
			}
			for h, ago := range row.ended {
				lost[h] = at.Add(-time.Duration(ago) * time.Second)
				delete(living, h)
			}
			for _, h := range row.away {
				delete(living, h)
			}
			for _, h := range row.held {
				held[h] = true
			}
			got := holdTogether(hosts, living, held, lost, at, window)
			if len(got) != len(row.want) || slices.ContainsFunc(row.want, func(h sixpn.Host) bool { return !got[h] }) {
				t.Errorf("held are %v, want %v", got, row.want)
			}
		})
	}
}

func TestAbsentHosts(t *testing.T) {
	t.Parallel()
	hosts := map[sixpn.Host]Host{1: {}, 2: {}, 3: {}, 4: {}}
	living := map[sixpn.Host]presence{1: {}}
	held := map[sixpn.Host]bool{2: true}
	for name, row := range map[string]struct {
		self sixpn.Host
		want []sixpn.Host
	}{
		"seen from one that is alive": {1, []sixpn.Host{3, 4}},
		"seen from one that is not":   {3, []sixpn.Host{4}},
		"seen from nowhere":           {0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Snapshot{Absent: absentHosts(hosts, living, held, row.self)}
			for h := range hosts {
				if got, want := s.Present(h), !slices.Contains(row.want, h); got != want {
					t.Errorf("host %v is present: %v, want %v", h, got, want)
				}
			}
		})
	}
}

func TestAlarmNamesWhoIsHeld(t *testing.T) {
	t.Parallel()
	hosts, held := map[sixpn.Host]Host{}, map[sixpn.Host]bool{}
	for i, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		hosts[sixpn.Host(i)] = Host{Name: name}
		if name != "g" {
			held[sixpn.Host(i)] = true
		}
	}
	if alarm := heldAlarm(hosts, held); !strings.Contains(alarm, "6 of 7 hosts") || !strings.Contains(alarm, "(a, b, c, d, e, …)") {
		t.Errorf("the alarm is %q", alarm)
	}
	if alarm := heldAlarm(hosts, nil); alarm != "" {
		t.Errorf("there is an alarm about nothing: %q", alarm)
	}
}
