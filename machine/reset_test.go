package machine_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/machine"
)

// TestResetSaysWhatIsInItsWay: a reset ends although something else is in the cgroup of
// the Machines, names it, and works once that is gone.
func TestResetSaysWhatIsInItsWay(t *testing.T) {
	for _, row := range []struct {
		name, dir string // below the Machines' cgroup
		want      string
	}{
		{"a process", "", "processes in it that are no Machine's: %d;"},
		{"a cgroup", "other", "a cgroup in it that is no Machine's: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := newDriver(t)
			group := machine.CgroupOf(d)
			dir := filepath.Join(group, row.dir)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			other := exec.Command("sleep", "infinity")
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			end := func() {
				_ = other.Process.Kill()
				_ = other.Wait()
				if row.dir != "" {
					await.True(t, "an empty cgroup", func() bool {
						err := os.Remove(dir)
						return err == nil || os.IsNotExist(err)
					})
				}
			}
			defer end()
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, other.Process.Pid), 0); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(await.Context(t), 20*time.Millisecond)
			defer cancel()
			want := row.want
			if strings.Contains(want, "%d") {
				want = fmt.Sprintf(want, other.Process.Pid)
			}
			if _, err := d.Reset(ctx, time.Millisecond); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("reset: %v, expected %q", err, want)
			}
			end()
			if _, err := d.Reset(await.Context(t), time.Millisecond); err != nil {
				t.Errorf("once it has gone: %v", err)
			}
		})
	}
}
