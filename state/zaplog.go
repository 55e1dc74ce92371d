package state

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZapLogger gives etcd a logger that writes to log. Only warnings and worse pass:
// what etcd calls information is dozens of lines a start.
func newZapLogger(log *slog.Logger) *zap.Logger {
	// etcd ends the process when it finds its files damaged; as a panic it can be told
	// as an error of StartEmbedded.
	return zap.New(&zapCore{log}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

type zapCore struct{ log *slog.Logger }

func (c *zapCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }
func (c *zapCore) Sync() error                  { return nil }

func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{c.log.With(attributes(fields)...)}
}

func (c *zapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) || expected[e.Message] {
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
}
