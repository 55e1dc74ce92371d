package agent

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/pflag"
)

// Sources are where an agent's configuration comes from: flags, the environment and
// one file, the first of which that names a setting wins.
type Sources struct {
	flags   *pflag.FlagSet
	scratch Config // what the flags say
	file    string // --config
	environ func() []string
	// directory has the files of agents by name, configDir but in tests.
	directory string
}

// AddFlags defines the flags of "sixpn agent".
func AddFlags(set *pflag.FlagSet) *Sources { return addFlags(set, false) }

// AddPlaces defines those that say which agent is meant: "agent reset" has these
// alone. The file is the same.
func AddPlaces(set *pflag.FlagSet) *Sources { return addFlags(set, true) }

func addFlags(set *pflag.FlagSet, places bool) *Sources {
	s := &Sources{flags: set, environ: os.Environ, directory: configDir}
	set.StringVar(&s.file, "config", "", fmt.Sprintf("YAML `file` of the configuration (default %s if it exists)", defaultFile("NAME")))
	for _, f := range fields {
		if places && !f.place {
			continue
		}
		usage := f.doc
		switch {
		case f.derived != "":
			usage += " (default " + f.derived + ")"
		case f.def != "" && f.def != "false":
			usage += " (default " + f.def + ")"
		}
		held := f.of(&s.scratch)
		if v, ok := held.(text); ok && f.secret {
			// The library repeats what it cannot set: a secret is looked at with the other
			// sources, which do not.
			held = text{to: v.to}
		}
		flag := set.VarPF(held, f.flag(), "", usage)
		if _, ok := held.(boolean); ok {
			flag.NoOptDefVal = "true"
		}
		// The library would say a default of its own, the value of before.
		flag.DefValue = ""
	}
	return s
}

// Logger makes the log of an agent, whose level a SIGHUP may change.
func (c Config) Logger(w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	setLevel(level, c.LogLevel)
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), level
	}
	return slog.New(slog.NewTextHandler(w, options)), level
}

// setLevel takes a level that was checked.
func setLevel(level *slog.LevelVar, name string) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err == nil {
		level.Set(l)
	}
}
