package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// standardPath is where commands are looked up inside a Machine.
const standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// withheld are the capabilities that a Machine's commands do not get, though
// they would reach no further than the Machine's own namespaces. Without them
// nothing inside can uncover what init's mounts cover, or take over init.
// Everything about the network is theirs: it is the router that keeps the walls.
var withheld = []uintptr{
	unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO,
	unix.CAP_SYS_BOOT, unix.CAP_PERFMON, unix.CAP_BPF, unix.CAP_CHECKPOINT_RESTORE,
}

// resolve finds the program that a command names, as a process inside would.
func resolve(r record, spec execSpec) (string, *syscall.ProcAttr, error) {
	if len(spec.Exec) == 0 || spec.Exec[0] == "" {
		return "", nil, errors.New("no command was given")
	}
	dir := spec.WorkDir
	if dir == "" {
		dir = "/"
	}
	if !filepath.IsAbs(dir) {
		return "", nil, fmt.Errorf("working directory %q is relative, expected an absolute path inside the machine", dir)
	}
	if err := unix.Access(dir, unix.X_OK); err != nil {
		return "", nil, explain(r, dir, err)
	}
	env := environment(spec.Env)
	path, err := lookUp(spec.Exec[0], dir, env)
	if err != nil {
		return "", nil, explain(r, spec.Exec[0], err)
	}
	return path, &syscall.ProcAttr{Dir: dir, Env: env, Sys: &syscall.SysProcAttr{Setsid: true}}, nil
}

// environment is env with PATH and HOME where they are missing. Of two values
// for one name the later counts.
func environment(env []string) []string {
	result := []string{"PATH=" + standardPath, "HOME=/"}
	index := map[string]int{"PATH": 0, "HOME": 1}
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		if i, ok := index[name]; ok {
			result[i] = entry
			continue
		}
		index[name] = len(result)
		result = append(result, entry)
	}
	return result
}

// lookUp is what a shell in dir would run for name. Of several errors the one
// that tells most is returned: a file that is there but out of reach.
func lookUp(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		return path, executable(path)
	}
	search := standardPath
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			search = value
		}
	}
	failure := fmt.Errorf("not found in PATH (%s)", search)
	for _, d := range filepath.SplitList(search) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		path := filepath.Join(d, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if errors.Is(err, syscall.EACCES) {
			failure = err
		}
	}
	return "", failure
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return &os.PathError{Op: "exec", Path: path, Err: syscall.EISDIR}
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return &os.PathError{Op: "exec", Path: path, Err: err}
	}
	return nil
}

// explain says what an error of the file system means inside a Machine.
func explain(r record, path string, err error) error {
	switch {
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %w: root in this machine is user %d of the host, so it reaches only what every user of the host may read, enter and execute; "+
			"check the file and each directory above it, and copy or \"chmod o+rx\" what it shall use", path, err, r.FirstID)
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%s: %w: /run, /tmp, /var/tmp and /dev/shm of a machine are empty when it starts, everything else is the host's", path, err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%s: %w: expected a program, or a script that begins with #!", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// forkUnprivileged starts a process that can never have the withheld
// capabilities. The limit belongs to a thread and is inherited, so a thread is
// used up for it.
func forkUnprivileged(path string, args []string, attr *syscall.ProcAttr) (int, error) {
	type result struct {
		pid int
		err error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		for _, capability := range withheld {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
				done <- result{err: os.NewSyscallError("prctl PR_CAPBSET_DROP", err)}
				return
			}
		}
		pid, err := syscall.ForkExec(path, args, attr)
		done <- result{pid, err}
	}()
	r := <-done
	return r.pid, r.err
}
