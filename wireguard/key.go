package wireguard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

const (
	keyFile     = "mesh.key"
	nextKeyFile = "mesh.key.next"
)

// openKey reads the private key, and makes it if there is none. A rotation that
// was cut short is completed: its key may already be the device's, and nobody
// else can say.
func openKey(dir string) (wgtypes.Key, error) {
	path, next := filepath.Join(dir, keyFile), filepath.Join(dir, nextKeyFile)
	if _, err := readKey(next); err == nil {
		if err := renameDurably(next, path); err != nil {
			return wgtypes.Key{}, err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return wgtypes.Key{}, err
	}
	key, err := readKey(path)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if key, err = wgtypes.GeneratePrivateKey(); err != nil {
		return wgtypes.Key{}, err
	}
	return key, writeKey(path, key)
}

func writeKey(path string, key wgtypes.Key) error {
	return writeDurably(path, []byte(key.String()+"\n"))
}

// readKey refuses what is no private key of Curve25519 in base64: with another key
// in its place every other host would lose this one.
func readKey(path string) (wgtypes.Key, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return wgtypes.Key{}, err
	}
	key, err := wgtypes.ParseKey(strings.TrimSuffix(string(b), "\n"))
	if err != nil || key == (wgtypes.Key{}) {
		return wgtypes.Key{}, fmt.Errorf("%s is damaged: it has %d bytes, expected the 44 of a base64 key and an end of line; "+
			"bring it back from a backup, or remove it, then this host gets a new key and its peers learn that", path, len(b))
	}
	return key, nil
}

// RotateKey gives the device a new key and returns its public half, base64. Peers
// do not know that yet: until the caller has told them nothing passes, and then a
// handshake does the rest. After an error the old key holds.
func (m *Mesh) RotateKey(ctx context.Context) (publicKey string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return "", err
	}
	path, next := filepath.Join(m.config.Dir, keyFile), filepath.Join(m.config.Dir, nextKeyFile)
	if err := writeKey(next, key); err != nil {
		return "", fmt.Errorf("rotate the key of the mesh: %w", err)
	}
	m.reached("next key written")
	if err := m.configure(ctx, wgtypes.Config{PrivateKey: &key}); err != nil {
		// It may have arrived in spite of the error. If this fails too, the next engine
		// has the old key, or the next Open gives it back.
		_ = m.configure(context.WithoutCancel(ctx), wgtypes.Config{PrivateKey: &m.key})
		return "", errors.Join(fmt.Errorf("rotate the key of the mesh: give %s its new key: %w", m.device.Name, err), os.Remove(next))
	}
	m.reached("device has the next key")
	m.key = key
	if err := renameDurably(next, path); err != nil {
		// Durable it is, and the next Open gives it its name.
		m.log.Error("the mesh has a new key, whose file keeps its temporary name for now", "file", next, "error", err)
	}
	return key.PublicKey().String(), nil
}
