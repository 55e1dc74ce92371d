package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest"
)

// shell is a bash that is told one command after another.
type shell struct {
	in  io.Writer
	out *bufio.Reader
}

// endOfStep separates the output of two commands.
const endOfStep = "end-of-step-7d1f"

// sandbox gives a page the places that the program uses by default, empty, and its
// own network, bpffs and cgroup, so that the commands of the documents need no flags,
// and pages of two test runs at once do not meet.
const sandbox = `set -e
mount --make-rprivate /
places="/var/lib/sixpn /run/sixpn /run/wireguard /etc/sixpn /run/netns"
mkdir -p $places
for place in $places; do mount -t tmpfs -o mode=755 tmpfs $place; done
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
export SIXPN_AGENT_CGROUP=$(findmnt -n -t cgroup2 -o TARGET | head -1)$(sed -n 's,/$,,; s,^0::,,p' /proc/self/cgroup)/sixpn-docs-$$
set +e
`

// runPage runs the steps in one shell, and cleans up after it.
func runPage(ctx context.Context, t *testing.T, tree, work string, steps []step) {
	t.Helper()
	cmd := exec.CommandContext(ctx, "bash", "--norc")
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(tree, "bin")+":"+os.Getenv("PATH")+":/usr/sbin:/sbin", "GOFLAGS=-buildvcs=false")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Setsid: true}
	in, err := cmd.StdinPipe()
	nettest.Must(t, err)
	read, write, err := os.Pipe()
	nettest.Must(t, err)
	defer read.Close()
	cmd.Stdout, cmd.Stderr = write, write
	nettest.Must(t, cmd.Start())
	write.Close()
	sh := shell{in, bufio.NewReader(read)}
	defer func() {
		// Whatever the page left running ends here; reset is what a reader would do.
		_, _ = sh.run(ctx, `jobs -p | xargs -r kill; wait; sixpn agent reset --state`)
		_, _ = sh.run(ctx, `for host in $(ls /run/netns); do nsenter --net=/run/netns/$host sixpn agent reset --name $host --state; done`)
		_, _ = sh.run(ctx, `rmdir $SIXPN_AGENT_CGROUP`)
		in.Close()
		_ = cmd.Wait()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}()
	if output, err := sh.run(ctx, sandbox); err != nil {
		t.Fatalf("make a sandbox: %v\n%s", err, output)
	}
	for _, s := range steps {
		if s.file != "" {
			nettest.Must(t, os.WriteFile(filepath.Join(work, s.file), []byte(s.content), 0o644))
			continue
		}
		output, err := sh.run(ctx, s.command)
		if err != nil {
			t.Fatalf("line %d: %s\n%v\n%s\n%s", s.line, s.command, err, output, agentLog(work))
		}
		if len(s.want) > 0 && !outputPattern(s.want).MatchString(strings.TrimRight(output, "\n")) {
			t.Fatalf("line %d: %s\nprinted\n%s\nand the page says\n%s", s.line, s.command, output, strings.Join(s.want, "\n"))
		}
	}
}

// agentLog is what a failed page shows of its agent.
func agentLog(work string) string {
	content, err := os.ReadFile(filepath.Join(work, "agent.log"))
	if err != nil {
		return ""
	}
	return "the agent's log ends with\n" + string(content[max(0, len(content)-4096):])
}

// run lets the shell do one command and returns what it printed.
func (s shell) run(ctx context.Context, command string) (output string, err error) {
	if _, err := fmt.Fprintf(s.in, "%s\necho %s $?\n", command, endOfStep); err != nil {
		return "", err
	}
	type result struct {
		output string
		err    error
	}
	done := make(chan result, 1)
	go func() {
		var all strings.Builder
		for {
			line, err := s.out.ReadString('\n')
			if err != nil {
				done <- result{all.String() + line, fmt.Errorf("the shell ended: %w", err)}
				return
			}
			before, status, ended := strings.Cut(line, endOfStep+" ")
			all.WriteString(before)
			if !ended {
				continue
			}
			code, err := strconv.Atoi(strings.TrimSpace(status))
			if err == nil && code != 0 {
				err = fmt.Errorf("exit status %d", code)
			}
			done <- result{all.String(), err}
			return
		}
	}()
	select {
	case r := <-done:
		return r.output, r.err
	case <-ctx.Done():
		return "", fmt.Errorf("it does not end: %w", ctx.Err())
	}
}

// outputPattern is what a page says of a command's output as a regular expression.
func outputPattern(lines []string) *regexp.Regexp {
	var pattern strings.Builder
	pattern.WriteString(`^`)
	for i, line := range lines {
		if line == "…" && i > 0 && i == len(lines)-1 {
			pattern.WriteString(`(?:\n.*)*`)
			continue
		}
		if line == "…" {
			pattern.WriteString(`(?:.*\n)*?`)
			if i == len(lines)-1 {
				pattern.WriteString(`.*`)
			}
			continue
		}
		parts := strings.Split(line, "…")
		for j, part := range parts {
			// Columns are as wide as what stands in them.
			parts[j] = spaces.ReplaceAllString(regexp.QuoteMeta(part), `\s+`)
		}
		pattern.WriteString(strings.Join(parts, `.*`) + `[ \t]*`)
		if i < len(lines)-1 && (i < len(lines)-2 || lines[i+1] != "…") {
			pattern.WriteString(`\n`)
		}
	}
	pattern.WriteString(`$`)
	return regexp.MustCompile(pattern.String())
}

var spaces = regexp.MustCompile(` {2,}`)

func TestOutputPattern(t *testing.T) {
	for _, c := range []struct {
		name, want, output string
		matches            bool
	}{
		{"same", "a\nb", "a\nb", true},
		{"another line", "a\nb", "a\nc", false},
		{"a line more", "a", "a\nb", false},
		{"a line less", "a\nb", "a", false},
		{"part of a line", "a … c", "a b c", true},
		{"part of a line across lines", "a … c", "a b\nb c", false},
		{"lines between", "a\n…\nc", "a\nb\nb\nc", true},
		{"no lines between", "a\n…\nc", "a\nc", true},
		{"lines at the end", "a\n…", "a\nb\nc", true},
		{"no lines at the end", "…\na\n…", "b\na", true},
		{"a longer line at the end", "a\n…", "ab", false},
		{"wider columns", "a  b", "a      b", true},
		{"special characters", "[x] (y)*", "[x] (y)*", true},
	} {
		if got := outputPattern(strings.Split(c.want, "\n")).MatchString(c.output); got != c.matches {
			t.Errorf("%s: %q against %q is %v", c.name, c.output, c.want, got)
		}
	}
}
