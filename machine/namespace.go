package machine

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNetNS runs f on a thread that is in a network namespace and is used up for
// it, so no other goroutine can ever find itself there.
func inNetNS(ctx context.Context, namespace *os.File, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		if unix.Gettid() == unix.Getpid() {
			// The main thread does not end. In there it would keep the namespace for
			// ever; held here, it leaves the work to another.
			defer runtime.UnlockOSThread()
			done <- inNetNS(ctx, namespace, f)
			return
		}
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter a machine's network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}
