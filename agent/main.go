package agent

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// Run reads the sources and is then an agent's life, as the function Run. complete
// puts in what no source says. SIGHUP has the file read again.
func (s *Sources) Run(ctx context.Context, log io.Writer, complete func(*Config)) error {
	loaded, err := s.Load()
	if err != nil {
		return err
	}
	config := loaded.Config
	logger, level := config.Logger(log)
	config.Log = logger
	complete(&config)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case <-hangups:
				loaded = s.reload(loaded, logger, level)
			case <-ended:
				return
			}
		}
	}()
	if loaded.File != "" {
		logger.Info("configuration", "file", loaded.File)
	}
	return Run(ctx, config)
}

// reload takes up from the sources what can change while an agent runs, and says what
// waits for its next start. Sources that are wrong now change nothing.
func (s *Sources) reload(before Loaded, log *slog.Logger, level *slog.LevelVar) Loaded {
	after, err := s.read()
	if err != nil {
		log.Error("the configuration was not read again: it is wrong", "error", err)
		return before
	}
	for i, f := range fields {
		now := after.Settings[i]
		if now.Value == before.Settings[i].Value {
			continue
		}
		if !f.live {
			log.Warn("a setting has another value now, which an agent takes up when it starts", "setting", f.key, "value", now.Value, "from", now.From)
			after.Settings[i].Value = before.Settings[i].Value
			continue
		}
		log.Info("setting changed", "setting", f.key, "value", now.Value, "from", now.From)
	}
	setLevel(level, after.Config.LogLevel)
	log.Info("the configuration was read again", "file", after.File)
	return after
}

// Reset reads the sources and does what the function Reset does.
func (s *Sources) Reset(ctx context.Context, log io.Writer, withState bool) (removed []string, err error) {
	loaded, err := s.Load()
	if err != nil {
		return nil, err
	}
	loaded.Config.Log, _ = loaded.Config.Logger(log)
	return Reset(ctx, loaded.Config, withState)
}
