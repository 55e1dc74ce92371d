package main

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// pipeHasData tells whether a stream is a pipe in which something waits to be read.
// It reads nothing.
func pipeHasData(in io.Reader) bool {
	file, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
		return false
	}
	waiting, err := unix.IoctlGetInt(int(file.Fd()), unix.TIOCINQ)
	return err == nil && waiting > 0
}
