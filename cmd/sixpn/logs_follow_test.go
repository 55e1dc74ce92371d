package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest"
)

// Wherever the reading breaks off, what comes then is the rest: nothing is lost, nothing
// comes twice.
func TestLogPlace(t *testing.T) {
	long := strings.Repeat("x", longestPiece+3)
	for name, text := range map[string]string{
		"one line":      "1 a\n",
		"times differ":  "1 a\n2 b\n3 c\n",
		"times are one": "1 a\n1 a\n1 b\n2 c\n",
		"empty lines":   "1 \n1 \n2 \n",
		"cut short":     "1 a\n2 b",
		"a long line":   "1 a\n1 " + long + "\n1 b\n2 c\n",
	} {
		want := ""
		for line := range strings.Lines(text) {
			_, content, _ := strings.Cut(line, " ")
			want += content
		}
		for cut := range len(text) {
			if cut%997 > 20 && cut < len(text)-20 {
				continue // of a long line a sample will do
			}
			var p logPlace
			var got strings.Builder
			show := func(piece []byte) error { got.Write(piece); return nil }
			if err := p.read(io.MultiReader(strings.NewReader(text[:cut]), broken{}), show); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s, cut at %d: error %v", name, cut, err)
			}
			// As the agent does: from the first line of that time.
			rest := text
			if at := strings.Index("\n"+text, "\n"+p.stamp+" "); p.stamp != "" {
				rest = text[at:]
			}
			if err := p.read(strings.NewReader(rest), show); err != nil {
				t.Fatalf("%s, cut at %d: %v", name, cut, err)
			}
			if got.String() != want {
				t.Errorf("%s, cut at %d: %d bytes came out, %.40q, expected %d, %.40q", name, cut, got.Len(), got.String(), len(want), want)
			}
		}
	}
	// What was read last is not kept any more: all that is left is new.
	p := logPlace{stamp: "1", lines: 1}
	var got strings.Builder
	if err := p.read(strings.NewReader("5 e\n6 f\n"), func(piece []byte) error { got.Write(piece); return nil }); err != nil || got.String() != "e\nf\n" {
		t.Errorf("of what was rotated away %q is left, error %v", got.String(), err)
	}
}

// broken is a connection that ended without a word.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// guarded may be read while it is written.
type guarded struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (g *guarded) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.Write(b)
}

func (g *guarded) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.String()
}

// Agents that are killed and started again, this host's and that of the Machine's, cost
// who follows its logs no line, and show none twice.
func TestLogsFollowOverRestarts(t *testing.T) {
	ctx := nettest.Context(t)
	f := nettest.StartFleet(ctx, t, nettest.FleetConfig{})
	one, two := f.Hosts[0], f.Hosts[1]
	must(t, one.CreateOrg(ctx, "acme"))
	must(t, one.CreateApp(ctx, "web", "acme"))
	count := []string{"sh", "-c", "i=0; while sleep 0.02; do i=$((i+1)); echo line $i; done"}
	here, there := nettest.Get[*nettest.Machine](t)(one.Run(ctx, "web", nettest.Options{}, count...)), nettest.Get[*nettest.Machine](t)(two.Run(ctx, "web", nettest.Options{}, count...))

	following, stop := context.WithCancel(ctx)
	defer stop()
	type follower struct {
		args []string
		of   map[string]string // what its lines of each Machine begin with
		out  guarded
		errs guarded
		code chan int
	}
	followers := []*follower{
		{args: []string{"logs", "-a", "web"}, of: map[string]string{
			here.ID: "web[" + here.ID + "] " + "iad ", there.ID: "web[" + there.ID + "] " + "fra ",
		}},
		{args: []string{"machine", "logs", "-f", here.ID}, of: map[string]string{here.ID: ""}},
		{args: []string{"machine", "logs", "-f", there.ID}, of: map[string]string{there.ID: ""}},
	}
	// got is how many lines came of a Machine; they must be all, in their order.
	got := func(l *follower, id string) (n int) {
		for line := range strings.Lines(l.out.String()) {
			rest, ok := strings.CutPrefix(line, l.of[id])
			if !ok || !strings.HasSuffix(rest, "\n") {
				continue
			}
			if n++; rest != fmt.Sprintf("line %d\n", n) {
				t.Fatalf("%q: line %d is %q", l.args, n, line)
			}
		}
		return n
	}
	more := func(what string) {
		t.Helper()
		for _, l := range followers {
			for id := range l.of {
				before := got(l, id)
				must(t, nettest.Eventually(ctx, fmt.Sprintf("%s: %q shows more", what, l.args), func(context.Context) error {
					if n := got(l, id); n < before+20 {
						return fmt.Errorf("it shows %d lines of %s, before %d; it says %s", n, id, before, l.errs.String())
					}
					return nil
				}))
			}
		}
	}
	for _, l := range followers {
		l.code = make(chan int, 1)
		go func() {
			l.code <- run(following, append([]string{"--socket", one.Socket(), "--wait-agent", "2m"}, l.args...), strings.NewReader(""), &l.out, &l.errs)
		}()
	}
	more("at first")
	for _, h := range []*nettest.Host{two, one} {
		must(t, h.KillAgent())
		must(t, h.StartAgent(ctx))
		more("after a restart of " + h.Name)
	}
	stop()
	for _, l := range followers {
		if code := <-l.code; code != exitInterrupted {
			t.Errorf("%q: exit code %d, it says %s", l.args, code, l.errs.String())
		}
		for id := range l.of {
			if notice := "logs of Machine " + id + " broke off"; !strings.Contains(l.errs.String(), notice) {
				t.Errorf("%q says %q, expected %q", l.args, l.errs.String(), notice)
			}
		}
	}
}
