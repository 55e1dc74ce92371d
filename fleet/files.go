package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// The files of Config.Dir, all of mode 0600.
const (
	hostFile = "host.pem" // certificate, authority, key: one file, so that none is ever without the other
	caFile   = "ca.pem"   // the authority alone
	joinFile = "join.pem" // the key that a join was begun with
	// MemberFile is there once a host has joined: where the store is.
	MemberFile = "fleet.json"
)

// member is what a host that has joined remembers.
type member struct {
	Endpoints []string `json:"endpoints"` // of the store
}

// writeFile leaves either the old file or the new one, durable.
func writeFile(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // not there any more when all went well
	_, err = file.Write(content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (f *Fleet) path(name string) string { return filepath.Join(f.config.Dir, name) }

// readMember returns nil for a host that has not joined another's store.
func (f *Fleet) readMember() (*member, error) {
	content, err := os.ReadFile(f.path(MemberFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := new(member)
	if err = json.Unmarshal(content, m); err == nil && len(m.Endpoints) == 0 {
		err = errors.New("it has no endpoint")
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read (%w): it is damaged; remove the directory %s and join again with a new token", f.path(MemberFile), err, f.config.Dir)
	}
	return m, nil
}

func (f *Fleet) writeMember(m member) error {
	content, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return writeFile(f.path(MemberFile), append(content, '\n'))
}
