package payload

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Held is one connection of "hold".
type Held struct {
	Server   string `json:"server"`   // machine id
	Messages int    `json:"messages"` // sent and echoed right
	Lasted   int    `json:"lasted"`   // milliseconds
	Quiet    bool   `json:"quiet"`
	// End is "done" when it lasted as long as it was asked to, else what ended it,
	// see kind.
	End string `json:"end"`
}

// hold opens connections and keeps them busy with small messages.
//
//	hold [-count N] [-quiet N] [-every D] [-for D] [-until PATH] ADDRESS:PORT
//
// After their first message the first -quiet of them only wait for what comes.
// It ends when PATH exists, after D at the latest, or when no connection is left.
func hold(ctx context.Context, args []string, out io.Writer) error {
	var count, quiet int
	var every, longest time.Duration
	var until string
	rest, err := flags(args, 1, "ADDRESS:PORT", func(set *flag.FlagSet) {
		set.IntVar(&count, "count", 1, "")
		set.IntVar(&quiet, "quiet", 0, "")
		set.DurationVar(&every, "every", 20*time.Millisecond, "")
		set.DurationVar(&longest, "for", 30*time.Second, "")
		set.StringVar(&until, "until", "", "")
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	if until != "" {
		go func() {
			ticker := time.NewTicker(every)
			defer ticker.Stop()
			for range ticker.C {
				if _, err := os.Stat(until); err == nil || ctx.Err() != nil {
					cancel()
					return
				}
			}
		}()
	}
	result := make([]Held, count)
	var holding sync.WaitGroup
	for i := range result {
		holding.Go(func() { result[i] = holdOne(ctx, rest[0], every, i < quiet) })
	}
	holding.Wait()
	return report(out, result)
}

func holdOne(ctx context.Context, address string, every time.Duration, quiet bool) (held Held) {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp6", address)
	if err != nil {
		return Held{End: kind(err)}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	reader, server, _, err := greeting(conn)
	if err != nil {
		return Held{End: kind(err)}
	}
	held.Server = server
	began := time.Now()
	defer func() { held.Lasted = int(time.Since(began).Milliseconds()) }()
	if quiet {
		return held.wait(ctx, conn, reader)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			held.End = "done"
			return held
		case <-ticker.C:
		}
		if err := echo(conn, reader); err != nil {
			held.End = kind(err)
			return held
		}
		held.Messages++
	}
}

// wait sends one message and then nothing: only the network can end it.
func (held *Held) wait(ctx context.Context, conn net.Conn, reader io.Reader) Held {
	if err := echo(conn, reader); err != nil {
		held.End = kind(err)
		return *held
	}
	held.Quiet, held.Messages = true, 1
	_ = conn.SetReadDeadline(time.Time{})
	// A deadline in the past wakes the read.
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	_, err := reader.Read(make([]byte, 1))
	if held.End = kind(err); ctx.Err() != nil && held.End == "timeout" {
		held.End = "done"
	}
	return *held
}

// echo sends one message and reads it back.
func echo(conn net.Conn, reader io.Reader) error {
	message := []byte(rand.Text())
	back := make([]byte, len(message))
	_, err := conn.Write(message)
	if err := errors.Join(err, conn.SetReadDeadline(time.Now().Add(patience))); err != nil {
		return err
	}
	if _, err := io.ReadFull(reader, back); err != nil {
		return err
	}
	if !bytes.Equal(message, back) {
		return errWrongBytes
	}
	return nil
}
