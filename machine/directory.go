package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Names inside a Machine's directory; see the package's comment.
const (
	recordFile        = "record.json"
	startedFile       = "started.json"
	exitFile          = "exit.json"
	supervisorLogFile = "supervisor.log"
	logDirectory      = "log"
)

// record is what a Machine's directory says about its latest run. It is written
// before anything of the run exists, so whatever a run can leave behind is
// found through it.
type record struct {
	Spec    Spec   `json:"spec"`
	Run     string `json:"run"`      // random, tells this run from the ones before it
	BootID  string `json:"boot_id"`  // of the host, see BootID
	Cgroup  string `json:"cgroup"`   // directory of the Machine's cgroup
	FirstID uint32 `json:"first_id"` // user and group 0 inside
	IDs     uint32 `json:"ids"`      // how many ids the Machine has
}

// ExitStatus is how a run ended.
type ExitStatus struct {
	Run        string    `json:"run"`
	Code       int       `json:"code"`              // of the command; 128+signal if a signal ended it
	Started    bool      `json:"started"`           // false if the command never ran
	Message    string    `json:"message,omitempty"` // for people, when Code does not say it all
	StartedAt  time.Time `json:"-"`                 // zero if the command never ran
	FinishedAt time.Time `json:"finished_at"`
	// Lost says that the supervisor did not live to see the end: it was killed,
	// or the host went down. Code is 137 then.
	Lost bool `json:"-"`
	// Rebooted says that the host was started again since.
	Rebooted bool `json:"-"`
}

const lostCode = 128 + 9

// startedMark is written just before a command is started. Without it nobody
// could tell, of a run that was lost, whether there was anything to lose.
type startedMark struct {
	Run string    `json:"run"`
	At  time.Time `json:"at"`
}

// readRecord returns an error that is os.ErrNotExist when the directory has no
// record, which means that nothing of the Machine was ever started.
func readRecord(dir string) (record, error) {
	var r record
	if err := readJSON(filepath.Join(dir, recordFile), &r); err != nil {
		return record{}, err
	}
	return r, nil
}

// readExit tells how the run of r ended, once its supervisor is gone.
func readExit(dir string, r record) (ExitStatus, error) {
	var s ExitStatus
	var mark startedMark
	for name, v := range map[string]any{exitFile: &s, startedFile: &mark} {
		if err := readJSON(filepath.Join(dir, name), v); err != nil && !errors.Is(err, os.ErrNotExist) {
			return ExitStatus{}, err
		}
	}
	boot, err := BootID()
	if err != nil {
		return ExitStatus{}, err
	}
	rebooted := boot != r.BootID
	if s.Run != r.Run { // of an earlier run, or none
		s = ExitStatus{
			Run: r.Run, Started: mark.Run == r.Run,
			Code: lostCode, Lost: true, FinishedAt: time.Now(), Message: "its supervisor was killed",
		}
		if rebooted {
			s.Message = "the host was started again while it ran"
		}
	}
	s.Rebooted = rebooted
	if s.Started && mark.Run == r.Run {
		s.StartedAt = mark.At
	}
	return s, nil
}

// BootID is the kernel's name for the time since the host was started.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is not what was written there: %w", path, err)
	}
	return nil
}

// writeJSON replaces a file so that after a crash either the old or the new
// content is there, whole.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err == nil {
		err = syncDirectory(filepath.Dir(path))
	}
	return err
}

// syncDirectory makes the names in a directory durable.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
