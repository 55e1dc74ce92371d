package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// The kernel keeps a socket's path in 108 bytes, the last one zero.
const maxSocketPath = 107

// Listen makes the socket that the API is served on, for its owner only. A socket
// that an agent left behind is replaced; one that somebody listens on, or a file
// of another kind, is an error. Closing the listener removes the socket.
func Listen(path string) (net.Listener, error) {
	if err := checkVacant(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("api socket: %w", err)
	}
	// A socket is open to whom the umask says between bind and chmod, so it is
	// made in a directory that nobody else may enter, then moved. The move
	// replaces a stale one without a moment in which there is none.
	private, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("api socket: %w", err)
	}
	defer os.RemoveAll(private)
	made := filepath.Join(private, "s")
	if len(made) > maxSocketPath || len(path) > maxSocketPath {
		return nil, fmt.Errorf("api socket %s: the path is too long, expected at most %d bytes for it and for %s", path, maxSocketPath, made)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("api socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(made, 0o600), os.Rename(made, path))
	var info os.FileInfo
	if err == nil {
		info, err = os.Lstat(path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("api socket: %w", err), l.Close())
	}
	return &listener{UnixListener: l, path: path, info: info}, nil
}

// listener removes its socket when it is closed, unless another took its place.
type listener struct {
	*net.UnixListener
	path string
	info os.FileInfo
}

func (l *listener) Close() error {
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// checkVacant fails unless nothing is at path, or a socket without a listener.
func checkVacant(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("api socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("api socket %s: there is a file of another kind; remove it or choose another path", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("api socket %s: another agent listens on it; stop it or choose another --name", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("api socket: %w", err)
	}
	return nil
}
