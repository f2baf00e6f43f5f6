package restore

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"

	"openvstorage/alba/abm"
	"openvstorage/alba/asd"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
)

// Disk is a disk that the backup names.
type Disk struct {
	Number  uint64 `json:"disk"`
	Place   string `json:"place"`             // as the backup has it, or where it was found
	Missing string `json:"missing,omitempty"` // why it could not be asked what it has seen
}

// askDisks asks the disks that can be reached which generation they have seen. It changes
// nothing. A disk that somebody else uses is an error: the directory that was lost, or a copy,
// is in use.
func (r *run) askDisks() error {
	found := map[uuid.UUID]string{}
	for _, dir := range r.Disks {
		id, err := asd.ReadIdentity(r.FS, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		known := slices.ContainsFunc(r.of.disks, func(o abm.OSD) bool { return uuid.UUID(o.LongID) == id.ID })
		switch {
		case id.Owner != r.of.backend:
			return fmt.Errorf("%w: the ASD in %s belongs to %s, not to %s", ErrOther, dir, id.Owner, r.of.backend)
		case !known:
			if err := r.ask(dir); err != nil { // it was added after the backup
				return err
			}
		}
		found[id.ID] = dir
	}
	slices.SortFunc(r.of.disks, func(a, b abm.OSD) int { return cmp.Compare(a.Number, b.Number) })
	for _, o := range r.of.disks {
		out := Disk{Number: o.Number, Place: string(o.Endpoint)}
		dir, elsewhere := found[o.LongID]
		if elsewhere {
			out.Place = dir
		} else if dir = out.Place; !path.IsAbs(dir) {
			dir = r.at(dir)
		}
		id, err := asd.ReadIdentity(r.FS, dir)
		if err == nil && id.ID != o.LongID {
			err = fmt.Errorf("%s holds another ASD, %s", dir, id.ID)
		}
		if err == nil {
			err = r.ask(dir)
		}
		if errors.Is(err, disk.ErrLocked) {
			return err
		}
		if err != nil {
			out.Missing = err.Error()
		}
		r.report.Disks = append(r.report.Disks, out)
	}
	return nil
}

// ask asks one disk, which nobody may use meanwhile.
func (r *run) ask(dir string) error {
	lock, err := r.FS.Lock(path.Join(dir, asd.LockName))
	if err != nil {
		return fmt.Errorf("the ASD in %s: %w", dir, err)
	}
	m, _, err := asd.ReadClaim(r.FS, dir)
	if err = errors.Join(err, lock.Close()); err == nil {
		r.disks = max(r.disks, m.Number)
	}
	return err
}
