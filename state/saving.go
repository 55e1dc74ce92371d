package state

import (
	"context"
	"errors"
	"os"
	"time"
)

// openLast begins with what is on disk, if there is something.
func (s *Store) openLast() (found bool) {
	if s.file == "" {
		return false
	}
	l, err := readLast(s.file)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err != nil {
		s.log.Error("the last state on disk cannot be read: without the store nothing is known", "file", s.file, "error", err)
		return false
	}
	d := newWhole()
	d.next.Revision, d.next.fleet, d.next.held = l.revision, l.fleet, l.held
	d.keepRaw = true
	for key, r := range l.records {
		if err := d.put(key, r.value, r.revision); err != nil {
			s.log.Error("a record of the last state on disk cannot be read", "key", key, "error", err)
		}
	}
	s.cluster, s.contact, s.saved = l.cluster, l.savedAt, l.revision
	s.publish(d)
	return true
}

// keepSaving writes the last state to disk as it changes, no more often than the
// setting says, and so that no more than a twentieth of the time goes into it; and once
// more at the end.
func (s *Store) keepSaving(ctx context.Context) {
	failing := false
	for after := s.saved; ; {
		_, waitErr := s.Wait(ctx, after)
		began := time.Now()
		revision, err := s.save()
		if err != nil {
			if !failing {
				s.log.Error("the last state cannot be written to disk: after a restart without the store an older one would be in force", "file", s.file, "error", err)
			}
		} else {
			after = revision
		}
		failing = err != nil
		if waitErr != nil {
			return
		}
		select {
		case <-time.After(max(s.saveInterval, 20*time.Since(began))):
		case <-ctx.Done():
		}
	}
}

// save writes the last state, unless it is on disk already.
func (s *Store) save() (revision int64, err error) {
	s.mu.Lock()
	l := last{
		cluster: s.cluster, fleet: s.snapshot.fleet, revision: s.snapshot.Revision, savedAt: s.contact.UTC(),
		held: s.snapshot.held,
	}
	if l.revision == s.saved {
		s.mu.Unlock()
		return l.revision, nil
	}
	l.records = make(map[string]rawRecord, len(s.raw))
	for key, r := range s.raw {
		l.records[key] = r
	}
	s.mu.Unlock()
	if err := writeLast(s.file, l); err != nil {
		return 0, err
	}
	s.saved = l.revision
	return l.revision, nil
}
