package nettest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sixpn/sixpn/api"
)

// Devices are the names of the network devices in the host's namespace.
func (h *Host) Devices() (names []string, err error) {
	err = h.namespace.Do(func() error {
		devices, err := net.Interfaces()
		for _, d := range devices {
			names = append(names, d.Name)
		}
		return err
	})
	return names, err
}

// Traces lists all that an agent of this host's name has left outside its state
// directory: devices, pins, mounts, cgroups, run files, processes.
func (h *Host) Traces() (traces []string, err error) {
	devices, err := h.Devices()
	if err != nil {
		return nil, err
	}
	for _, name := range devices {
		if name != "lo" && name != Uplink {
			traces = append(traces, "device "+name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, h.Dir) {
			traces = append(traces, "mount "+fields[4])
		}
		if before, after, ok := strings.Cut(line, " - cgroup2 "); ok && after != "" {
			found, err := filepath.Glob(filepath.Join(strings.Fields(before)[4], "*", "sixpn-"+h.Name))
			more, moreErr := filepath.Glob(filepath.Join(strings.Fields(before)[4], "sixpn-"+h.Name))
			if err := errors.Join(err, moreErr); err != nil {
				return nil, err
			}
			for _, path := range append(found, more...) {
				traces = append(traces, "cgroup "+path)
			}
		}
	}
	for what, dir := range map[string]string{"pins": h.PinDir(), "run directory": h.RunDir()} {
		if _, err := os.Stat(dir); err == nil {
			traces = append(traces, what+" "+dir)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	processes, err := h.processes()
	return append(traces, processes...), err
}

// processes lists those with the host's directory in their command line.
func (h *Host) processes() (found []string, err error) {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		if line := strings.ReplaceAll(string(content), "\x00", " "); strings.Contains(line, h.Dir) {
			found = append(found, "process "+line)
		}
	}
	return found, nil
}

// KillDuringStart starts an agent and kills it after a time, ready or not.
func (h *Host) KillDuringStart(ctx context.Context, after time.Duration) error {
	p, err := h.launch(h.config.Executable, nil)
	if err != nil {
		return err
	}
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-p.ended:
		return fmt.Errorf("the agent ended while it started: %w; %s", p.err, h.lastWords())
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	return nil
}

// DestroyOthers destroys all Machines of an app but one.
func (h *Host) DestroyOthers(ctx context.Context, app, keep string) error {
	answer, err := h.Client.ListMachinesWithResponse(ctx, app, &api.ListMachinesParams{})
	if err := api.Check(answer, err); err != nil {
		return err
	}
	for _, record := range *answer.JSON200 {
		if record.ID == keep {
			continue
		}
		m := &Machine{Host: h, App: app, ID: record.ID}
		// One that is being destroyed may be gone before it is asked to go.
		var failure *api.Error
		if err := m.Destroy(ctx); err != nil && !(errors.As(err, &failure) && failure.Code == http.StatusNotFound) {
			return err
		}
	}
	return nil
}
