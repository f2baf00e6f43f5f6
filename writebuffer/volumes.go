package writebuffer

import (
	"errors"
	"io/fs"
	"path"
	"slices"

	"openvstorage/sco"

	"github.com/google/uuid"
)

func (b *Buffer) volumeDir(v uuid.UUID) string { return path.Join(b.opt.Dir, v.String()) }

// countVolumes adds the SCO files of vDisks that are still to be recovered, so
// that the budget holds from the start.
func (b *Buffer) countVolumes() error {
	ids, err := b.Volumes()
	if err != nil {
		return err
	}
	for _, id := range ids {
		names, err := b.opt.FS.ReadDir(b.volumeDir(id))
		if err != nil {
			// That vDisk is not opened (Recover meets the same), the others are.
			b.opt.Logger.Warn("write buffer: a vDisk's files cannot be counted", "vdisk", id, "err", err)
			continue
		}
		found := 0
		for _, name := range names {
			if _, err := sco.ParseName(name); err == nil {
				found++
			}
		}
		b.pool.count(found)
	}
	return nil
}

// Discard removes everything that a vDisk left in the buffer, durably. Its Log must
// be closed, or never have been opened. After an error it may be called again.
func (b *Buffer) Discard(v uuid.UUID) error {
	dir := b.volumeDir(v)
	names, err := b.opt.FS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) && !b.names.owes(dir) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = b.pool.withRoom(func() error {
		return b.names.remove(dir, b.opt.FS.RemoveAll, func() error { return b.opt.FS.MkdirAll(dir, 0o700) })
	})
	left, lerr := b.opt.FS.ReadDir(dir)
	if lerr != nil && !errors.Is(lerr, fs.ErrNotExist) {
		left = names // nothing is known to have come free
	}
	for _, name := range names {
		if _, err := sco.ParseName(name); err == nil && !slices.Contains(left, name) {
			b.pool.forget()
		}
	}
	if err == nil {
		b.names.forget(dir, AcceptLoss)
	}
	return err
}

// Prepare makes the directory of a new vDisk, durable on return. From then on a missing
// directory means that data was lost.
func (b *Buffer) Prepare(v uuid.UUID) error {
	dir, made := b.volumeDir(v), false
	err := b.pool.withRoom(func() error {
		return b.names.add(b.opt.Dir, func() error {
			_, err := b.opt.FS.Stat(dir)
			if made = made || errors.Is(err, fs.ErrNotExist); err != nil && !made {
				return err
			}
			return b.opt.FS.MkdirAll(dir, 0o700)
		})
	})
	if err != nil && made { // the next one makes the name anew
		if rerr := b.opt.FS.Remove(dir); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// Dir is where the local files of a vDisk are.
func (b *Buffer) Dir(v uuid.UUID) string { return b.volumeDir(v) }

// lossAccepted takes the file AcceptLoss away, durably: a new epoch has begun with the
// data that was left.
func (b *Buffer) lossAccepted(v uuid.UUID) error {
	return b.names.remove(path.Join(b.volumeDir(v), AcceptLoss), b.opt.FS.Remove, nil)
}

// Holds reports whether the vDisk has files in the buffer. A directory that cannot be
// read counts as not empty (P8).
func (b *Buffer) Holds(v uuid.UUID) bool {
	names, err := b.opt.FS.ReadDir(b.volumeDir(v))
	return err != nil && !errors.Is(err, fs.ErrNotExist) || len(names) > 0
}

// Volumes lists the vDisks that left something in the buffer.
func (b *Buffer) Volumes() ([]uuid.UUID, error) {
	names, err := b.opt.FS.ReadDir(b.opt.Dir)
	if err != nil {
		return nil, err
	}
	var ids []uuid.UUID
	for _, name := range names {
		if id, err := uuid.Parse(name); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// size is how many bytes of SCO files there are, with those of the pool.
func (b *Buffer) size(pool string) (n int64, err error) {
	dirs := []string{pool}
	ids, err := b.Volumes()
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		dirs = append(dirs, b.volumeDir(id))
	}
	for _, dir := range dirs {
		names, _ := b.opt.FS.ReadDir(dir) // what cannot be read counts for nothing here
		for _, name := range names {
			if _, err := sco.ParseName(name); err != nil && dir != pool {
				continue
			}
			if info, err := b.opt.FS.Stat(path.Join(dir, name)); err == nil {
				n += info.Size()
			}
		}
	}
	return n, nil
}
