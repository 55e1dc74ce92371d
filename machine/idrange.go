package machine

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Every Machine has user and group ids of its own, so that no two of them, of
// whichever agent on this host, share an owner, a limit or a signal permission.
// A range is claimed by a symbolic link in a directory that all agents of the
// host share: its name is the range's first id, its target who has it. Making a
// link is atomic and fails if it is there.
const (
	idsPerMachine = 1 << 16
	firstRangeID  = 1 << 28       // above what login.defs, systemd and subuid hand out
	lastRangeID   = 1<<32 - 1<<17 // 2^32-1 is no id
	rangeCount    = (lastRangeID - firstRangeID) / idsPerMachine
)

// claimIDs returns the first id of a range that is owner's from now on: the
// preferred one (0: none) if it can be had.
func claimIDs(dir, owner string, preferred uint32) (uint32, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	if preferred != 0 {
		ok, err := claim(dir, owner, preferred)
		if ok || err != nil {
			return preferred, err
		}
	}
	h := fnv.New32a()
	h.Write([]byte(owner))
	start := h.Sum32() % rangeCount
	for i := range uint32(rangeCount) {
		first := firstRangeID + (start+i)%rangeCount*idsPerMachine
		ok, err := claim(dir, owner, first)
		if ok || err != nil {
			return first, err
		}
	}
	return 0, fmt.Errorf("all %d id ranges in %s are taken: destroy Machines, or remove links of agents that are gone", rangeCount, dir)
}

func claim(dir, owner string, first uint32) (bool, error) {
	path := filepath.Join(dir, strconv.FormatUint(uint64(first), 10))
	err := os.Symlink(owner, path)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, os.ErrExist) {
		return false, err
	}
	holder, err := os.Readlink(path)
	return err == nil && holder == owner, nil
}

// releaseIDs gives back every range of owner.
func releaseIDs(dir string, owner func(string) bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		holder, err := os.Readlink(path)
		if err != nil || !owner(holder) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// rangeOwner is what a claim says: which Machine of which agent.
func rangeOwner(agent, id string) string { return agent + "/" + id }

// splitRangeOwner is the inverse of rangeOwner.
func splitRangeOwner(owner string) (agent, id string) {
	i := strings.LastIndexByte(owner, '/')
	if i < 0 {
		return "", owner
	}
	return owner[:i], owner[i+1:]
}
