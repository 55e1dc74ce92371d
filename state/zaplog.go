package state

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZapLogger gives etcd a logger that writes to log. Only warnings and worse pass:
// what etcd calls information is dozens of lines a start.
// While quiet is set nothing passes: a server that is being closed reports each of
// its listeners as an error.
func newZapLogger(log *slog.Logger, quiet *atomic.Bool) *zap.Logger {
	// etcd ends the process when it finds its files damaged; as a panic it can be told
	// as an error of StartEmbedded.
	return zap.New(&zapCore{log, quiet}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

type zapCore struct {
	log   *slog.Logger
	quiet *atomic.Bool
}

func (c *zapCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }
func (c *zapCore) Sync() error                  { return nil }

func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{c.log.With(attributes(fields)...), c.quiet}
}

func (c *zapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) || expected[e.Message] || e.Level < zapcore.DPanicLevel && c.quiet.Load() {
		return checked
	}
	return checked.AddCore(e, c)
}

func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if e.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, "etcd: "+e.Message, attributes(fields)...)
	return nil
}

func attributes(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(encoder)
	}
	out := make([]any, 0, len(encoder.Fields))
	for name, value := range encoder.Fields {
		out = append(out, slog.Any(name, value))
	}
	return out
}

// expected are warnings about choices that are made on purpose here.
var expected = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	// The unix socket beside the listeners for other hosts is its owner's only.
	"scheme is http or unix while key and cert files are present; ignoring key and cert files":           true,
	"scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL": true,
	// Whoever asked is told how it ended.
	"retrying of unary invoker failed": true,
	// A member that joins has nothing yet.
	"Failed to detect schema version":              true,
	"failed to update storage version":             true,
	"simple token is not cryptographically signed": true, // no tokens are used: the socket is the owner's only
}
