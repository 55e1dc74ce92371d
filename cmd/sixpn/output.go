package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// printJSON is the answer of every command with --json.
func (c *cli) printJSON(v any) error {
	encoder := json.NewEncoder(c.out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// table prints rows in columns, under a header.
func (c *cli) table(header string, rows [][]string) error {
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(header, ",", "\t"))
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// section is a table below others.
type section struct {
	header string
	rows   [][]string
}

// sections prints the tables that have rows, an empty line before each.
func (c *cli) sections(sections []section) error {
	for _, s := range sections {
		if len(s.rows) == 0 {
			continue
		}
		fmt.Fprintln(c.out)
		if err := c.table(s.header, s.rows); err != nil {
			return err
		}
	}
	return nil
}

// pairs prints names and values, leaving out what has no value.
func (c *cli) pairs(values ...string) error {
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(values); i += 2 {
		if values[i+1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", values[i], values[i+1])
		}
	}
	return w.Flush()
}

// ago is how people say when something happened.
func ago(t time.Time) string {
	age := time.Since(t)
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		switch n := int(age / unit.length); {
		case n == 1:
			return "1 " + unit.name + " ago"
		case n > 1:
			return fmt.Sprintf("%d %ss ago", n, unit.name)
		}
	}
	return "just now"
}

// note tells people what takes a while. It is silent in a pipe.
func (c *cli) note(format string, args ...any) {
	if isTerminal(c.err) {
		fmt.Fprintf(c.err, format+"\n", args...)
	}
}

// confirm asks before what cannot be undone. Who is not at a terminal is not asked
// and has to say --yes.
func (c *cli) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(c.in) {
		return usagef("%s Give --yes to say so without being asked", question)
	}
	return c.ask(question)
}

func yesFlag(command *cobra.Command, yes *bool) {
	command.Flags().BoolVarP(yes, "yes", "y", false, "do not ask")
}

// ask is confirm at a terminal.
func (c *cli) ask(question string) error {
	fmt.Fprintf(c.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(c.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was changed")
}

// isTerminal tells whether a stream of the command line is one.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
