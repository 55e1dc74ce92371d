package wireguard_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sixpn/sixpn/internal/nettest/await"
	"github.com/sixpn/sixpn/wireguard"
)

func (h *host) keyFile() string { return filepath.Join(h.config.Dir, wireguard.KeyFile) }

func TestKeyIsMadeOnce(t *testing.T) {
	a := newHost(t, 7)
	first := a.open().PublicKey()
	info, err := os.Stat(a.keyFile())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key's file is %v (%v), expected one that only its owner can read", info, err)
	}
	a.in(func() error {
		_, err := wireguard.Reset(await.Context(t), a.config)
		return err
	})
	if second := a.open().PublicKey(); second != first {
		t.Errorf("the second key is %s, expected the first again, %s", second, first)
	}
}

// A key that cannot be read is refused, and left as it is.
func TestDamagedKeyIsRefused(t *testing.T) {
	whole, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty":      "",
		"cut short":  whole.String()[:20],
		"no base64":  strings.Repeat("?", 44) + "\n",
		"zeros":      wgtypes.Key{}.String() + "\n",
		"two keys":   whole.String() + "\n" + whole.String() + "\n",
		"all of nul": strings.Repeat("\x00", 45),
	} {
		for _, file := range []string{wireguard.KeyFile, wireguard.NextKeyFile} {
			t.Run(name+" "+file, func(t *testing.T) {
				a := newHost(t, 7)
				path := filepath.Join(a.config.Dir, file)
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				err := a.openError()
				if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup") {
					t.Errorf("a damaged key was met with %v", err)
				}
				if b, err := os.ReadFile(path); err != nil || string(b) != content {
					t.Errorf("the damaged key became %q (%v)", b, err)
				}
				if a.engine() != 0 {
					t.Error("an engine was started")
				}
			})
		}
	}
}

func TestRotatedKeyCostsAHandshake(t *testing.T) { engines(t, rotatedKeyCostsAHandshake) }

func rotatedKeyCostsAHandshake(t *testing.T, a, b *host) {
	old, before, pid := a.mesh.PublicKey(), b.status(a.number), a.engine()
	rotated, err := a.mesh.RotateKey(await.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	if rotated == old || a.mesh.PublicKey() != rotated {
		t.Errorf("the key was %s, RotateKey said %s, and it is %s", old, rotated, a.mesh.PublicKey())
	}
	b.setPeers(a.peer())
	b.reach(a)
	a.reach(b)
	after := b.status(a.number)
	if after.PublicKey != rotated || !after.LastHandshake.After(before.LastHandshake) {
		t.Errorf("after the rotation the peer is %+v, before it was %+v", after, before)
	}
	if now := a.engine(); now != pid {
		t.Errorf("the engine is process %d, expected the same as before, %d", now, pid)
	}
	if _, err := os.Stat(filepath.Join(a.config.Dir, wireguard.NextKeyFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of the next key is still there (%v)", err)
	}
	a.open()
	if now := a.mesh.PublicKey(); now != rotated {
		t.Errorf("the next agent has the key %s, expected %s", now, rotated)
	}
	b.reach(a)
}

// A rotation that was cut short is completed by the next agent: device, file and
// what the agent says are one key.
func TestRotationCutShort(t *testing.T) {
	for _, step := range []string{"next key written", "device has the next key"} {
		t.Run(step, func(t *testing.T) {
			a, b := newPair(t, "IPv4")
			b.open()
			old := a.open().PublicKey()
			rotating := a.rotate(step)
			if status := rotating.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
				t.Fatalf("the agent ended with %v, expected by its own signal", status)
			}
			if a.open().PublicKey() == old {
				t.Error("the rotation was forgotten")
			}
			a.setPeers(b.peer())
			b.setPeers(a.peer())
			a.connect()
			b.connect()
			a.reach(b)
			b.reach(a)
		})
	}
}

// A device that cannot be reached keeps its old key.
func TestFailedRotation(t *testing.T) {
	a, b := newMesh(t, "IPv4")
	a.killEngine(syscall.SIGKILL)
	await.True(t, "the engine is dead", func() bool { return a.engine() == 0 })
	old := a.mesh.PublicKey()
	if _, err := a.mesh.RotateKey(await.Context(t)); err == nil {
		t.Error("a key was rotated without an engine")
	}
	a.run()
	a.reach(b)
	if now := a.mesh.PublicKey(); now != old {
		t.Errorf("the key is %s, expected the old one, %s", now, old)
	}
}
