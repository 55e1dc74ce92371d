package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest"
)

// pages are the documents with command blocks. The first two build the program
// themselves, in a clean tree of their own; the others find it in their path.
var pages = []string{
	"README.md",
	"docs/quickstart.md",
	"docs/names.md",
	"docs/flycast.md",
	"docs/operating.md",
	"docs/fleet.md",
	"docs/internet.md",
}

// TestDocuments runs every console block of the documents as a reader would: one
// shell a page, as root, with directories and a network of its own, and compares
// what is printed with what the page says.
func TestDocuments(t *testing.T) {
	tree := copyTree(t)
	for _, page := range pages {
		t.Run(page, func(t *testing.T) {
			content, err := os.ReadFile(filepath.Join(tree, page))
			nettest.Must(t, err)
			steps, err := readSteps(string(content))
			nettest.Must(t, err)
			if len(steps) == 0 {
				t.Fatal("the page has no console block: take it off the list, or give it one")
			}
			work := tree
			if !strings.Contains(string(content), "# make build") {
				work = filepath.Join(tree, "work-"+filepath.Base(page))
				nettest.Must(t, os.MkdirAll(work, 0o755))
			}
			runPage(nettest.Context(t), t, tree, work, steps)
		})
	}
}

// TestNoUnknownPage finds documents with blocks that nobody runs.
func TestNoUnknownPage(t *testing.T) {
	known := map[string]bool{}
	for _, page := range pages {
		known[page] = true
	}
	found, err := filepath.Glob("../docs/*.md")
	nettest.Must(t, err)
	for _, path := range append(found, "../README.md") {
		content, err := os.ReadFile(path)
		nettest.Must(t, err)
		page := strings.TrimPrefix(path, "../")
		if strings.Contains(string(content), "```console") && !known[page] {
			t.Errorf("%s has console blocks and is not in pages: add it", page)
		}
	}
}

// copyTree copies what the repository has, without what was built: a clean tree.
func copyTree(t *testing.T) string {
	t.Helper()
	list, err := exec.Command("git", "-C", "..", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatalf("list the files of the repository: %v", err)
	}
	// Machines are not root: they must be able to enter it.
	tree, err := os.MkdirTemp("/var/lib", "sixpn-docs-")
	nettest.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(tree) })
	nettest.Must(t, os.Chmod(tree, 0o755))
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		from, err := os.ReadFile(filepath.Join("..", name))
		if os.IsNotExist(err) {
			continue // removed, and not committed yet
		}
		nettest.Must(t, err)
		info, err := os.Stat(filepath.Join("..", name))
		nettest.Must(t, err)
		to := filepath.Join(tree, name)
		nettest.Must(t, os.MkdirAll(filepath.Dir(to), 0o755))
		nettest.Must(t, os.WriteFile(to, from, info.Mode().Perm()))
	}
	// Built once for all pages; README and quickstart build it again, from the cache.
	build := exec.Command("make", "build")
	build.Dir = tree
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build in a clean tree: %v\n%s", err, output)
	}
	return tree
}

// step is one thing that a page lets its reader do.
type step struct {
	line    int
	command string
	want    []string // lines of output; none: any
	file    string   // instead of a command: a file that the page shows
	content string
}

// readSteps reads a page's blocks. In ```console, "# " begins a command and "> "
// goes on with it; the lines after it are its output, in which "…" stands for
// anything, and alone on a line for any number of lines. Any other block with a
// name after its language, such as ```toml fly.toml, is a file.
func readSteps(page string) (steps []step, err error) {
	var language, name string
	inside := false
	for i, line := range strings.Split(page, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && inside:
			inside = false
		case isFence:
			inside = true
			language, name, _ = strings.Cut(fence, " ")
			if name != "" && language != "console" {
				steps = append(steps, step{line: i + 1, file: name})
			}
		case !inside:
		case language != "console":
			if name != "" {
				steps[len(steps)-1].content += line + "\n"
			}
		case strings.HasPrefix(line, "# "):
			steps = append(steps, step{line: i + 1, command: line[2:]})
		case len(steps) == 0 || steps[len(steps)-1].command == "":
			return nil, fmt.Errorf("line %d: output without a command: begin a command with \"# \"", i+1)
		case strings.HasPrefix(line, "> "):
			steps[len(steps)-1].command += "\n" + line[2:]
		default:
			last := &steps[len(steps)-1]
			last.want = append(last.want, line)
		}
	}
	if inside {
		return nil, fmt.Errorf("a block is not closed")
	}
	return steps, nil
}
