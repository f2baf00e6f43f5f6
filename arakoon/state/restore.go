package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
)

// Restore makes the state of a backup in a directory, which must be absent. From the
// backup come the users' keys, sessions, leases, level and time. The rest is the caller's:
// cluster, member, life, generation and begin of opt. Prepare is told what the backup is
// of, and may set them, or refuse the backup.
//
// When Restore returns nil the state is durable, but for the name of its directory. After
// an error, or a power cut before that, the directory is of no use and is to be removed.
func Restore(opt Options, from io.Reader, prepare func(BackupInfo, *Options) error) (BackupInfo, error) {
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
		value, err := alone(key, value, s.meta.at.Index)
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
		// What would be refused at the next start is refused now.
		if s, err = Open(opt); err == nil {
			if s.Gone(opt.Member) {
				err = fmt.Errorf("the group has removed member %d, and no other may have its id: take a new one", opt.Member)
			}
			err = errors.Join(err, s.Leave())
		}
	}
	return info, err
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
