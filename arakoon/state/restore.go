package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Restore makes the state of a backup in a directory, which must be absent. From the
// backup come the users' keys, sessions, leases, level and time. The rest is the caller's:
// cluster, member, life, generation and begin of opt. Prepare is told what the backup is
// of, and may set them, or refuse the backup. Change, if not nil, may change users' keys.
//
// When Restore returns nil the state is durable, but for the name of its directory. After
// an error, or a power cut before that, the directory is of no use and is to be removed.
func Restore(opt Options, from io.Reader, prepare func(BackupInfo, *Options) error, change *Change) (BackupInfo, error) {
	switch _, err := opt.FS.Stat(opt.Dir); {
	case err == nil:
		return BackupInfo{}, fmt.Errorf("arakoon state: restore %s: %w", opt.Dir, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return BackupInfo{}, err
	}
	var s *State
	var b *pebble.Batch
	put := func() error {
		err := s.db.Apply(b, pebble.NoSync)
		b.Reset()
		return err
	}
	info, err := readBackup(from, func(i BackupInfo) (err error) {
		if err := prepare(i, &opt); err != nil {
			return err
		}
		if s, err = Open(opt); err != nil {
			return err
		}
		s.meta.level, s.meta.leases, s.meta.time = i.Level, i.leases, i.time
		b = s.db.NewBatch()
		return nil
	}, func(key, value []byte) error {
		value, err := change.restored(key, value, s.meta.at.Index)
		if err != nil {
			return err
		}
		if err := b.Set(key, value, nil); err != nil || b.Len() < 4<<20 {
			return err
		}
		return put()
	})
	if s == nil {
		return info, err
	}
	if err == nil {
		err = change.more(b)
	}
	if err == nil {
		// The meta last: without it the directory is no member's state.
		if err = b.Set(metaKey, appendMeta(nil, s.meta), nil); err == nil {
			err = put()
		}
	}
	err = errors.Join(err, b.Close())
	if err != nil {
		return info, errors.Join(err, s.Leave())
	}
	if err = s.Close(); err == nil {
		err = opens(opt)
	}
	return info, err
}

// opens refuses what would be refused at the next start.
func opens(opt Options) error {
	s, err := Open(opt)
	if err != nil {
		return err
	}
	if s.Gone(opt.Member) {
		err = fmt.Errorf("the group has removed member %d, and no other may have its id: take a new one", opt.Member)
	}
	return errors.Join(err, s.Leave())
}

// Change is what a restore changes of a backup, such as numbers that must not be given out
// again. Its zero value and nil change nothing.
type Change struct {
	// Each is given each user's key, in order, with its value, and returns the value that it
	// is to have. It keeps neither.
	Each func(key, value []byte) ([]byte, error)
	// Set are users' keys that are set, whatever the backup has of them.
	Set map[string][]byte
}

// of is what becomes of a key of Pebble.
func (c *Change) of(key, value []byte) ([]byte, error) {
	name, users := bytes.CutPrefix(key, userPrefix)
	if c == nil || c.Each == nil || !users {
		return value, nil
	}
	value, err := c.Each(name, value)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", name, err)
	}
	return value, nil
}

// restored is what becomes of a key of Pebble in a group of one member that was made at an index.
func (c *Change) restored(key, value []byte, index uint64) ([]byte, error) {
	value, err := c.of(key, value)
	if err != nil {
		return nil, err
	}
	return alone(key, value, index)
}

// more puts what is set besides.
func (c *Change) more(b *pebble.Batch) error {
	if c == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		if err := b.Set(userKey([]byte(name)), c.Set[name], nil); err != nil {
			return err
		}
	}
	return nil
}

// Scan reads a whole backup as Verify does, and gives each user's key with its value to each,
// which keeps neither. What each was given counts only if Scan returns nil.
func Scan(r io.Reader, each func(key, value []byte) error) (BackupInfo, error) {
	return readBackup(r, func(BackupInfo) error { return nil }, func(key, value []byte) error {
		if name, users := bytes.CutPrefix(key, userPrefix); users {
			return each(name, value)
		}
		return nil
	})
}

// alone returns the value of a key in a group of one member that was made at an index. That is
// in one zone, so a requirement of zones ends, on record.
func alone(key, value []byte, index uint64) ([]byte, error) {
	if string(key) != string(zonesKey) {
		return value, nil
	}
	q, err := decodeRequirement(value)
	if err != nil || q.Zones < 2 {
		return value, err
	}
	return appendRequirement(nil, q.After(max(index, q.Since), 1, true)), nil
}
