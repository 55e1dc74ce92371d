package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/api"
)

func TestExecInput(t *testing.T) {
	newWorldWithApps(t)
	id := runs(t, "--", "run")
	binary := "\x00\xff\xfe\n\x80"
	if r := sixpnIn(t, binary, "machine", "exec", "-i", id, "cat"); r.code != exitDone || r.out != binary {
		t.Errorf("exec of bytes that are no text: %+v", r)
	}
	r := sixpnIn(t, binary, "machine", "exec", "-i", "--json", id, "cat")
	if result := unmarshal[api.ExecResult](t, r.out); result.Encoding != encodingBase64 || result.Stdout != "AP/+CoA=" {
		t.Errorf("exec --json of bytes that are no text: %+v", result)
	}
	for _, row := range []struct {
		flags, input, command, out string
		warns                      bool
	}{
		{"", "x", "cat", "", true},
		{"", "", "cat", "", false},
		{"-i", "x", "cat", "x", false},
		{"", "x", "other", "[\"other\"] \n", false},
	} {
		in, write, err := os.Pipe()
		must(t, err)
		_, err = write.WriteString(row.input)
		must(t, err)
		must(t, write.Close())
		var out, errs bytes.Buffer
		args := strings.Fields("machine exec " + row.flags + " " + id + " " + row.command)
		if code := run(t.Context(), args, in, &out, &errs); code != exitDone || out.String() != row.out || strings.Contains(errs.String(), "--stdin") != row.warns {
			t.Errorf("exec %s with %q piped in: exit code %d, output %q, stderr %q", args, row.input, code, out.String(), errs.String())
		}
		must(t, in.Close())
	}
}
