package datadir

import (
	"errors"
	"fmt"
	"path/filepath"

	"openvstorage/internal/disk"
)

// The reserve keeps the room that a start may need. DIR/reserve is a file of zeros. The
// files in DIR/reserve.names are empty; they are kept where the file system may run out
// of files. On a full disk the reserve is given up, so that a start can read what is
// there and delete what may go.
const (
	reserveFile  = "reserve"
	reserveBytes = 8 << 20
	reserveStep  = 1 << 20 // is given up at a time
	// reserveShare: no reserve is made if it would take more than this share of the
	// free room.
	reserveShare = 16

	namesDir   = "reserve.names"
	namesKept  = 64 // a start makes about a dozen: sockets, and files of each group
	namesStep  = 16
	namesShare = 4

	// fewNames: a file system on which at most this many files can still be made counts
	// as full.
	fewNames = 16
)

// KeepReserve makes whatever part of the reserve is missing, if there is plenty of
// room.
func (d *Directory) KeepReserve() error {
	u, err := d.fs.Statfs(d.Path)
	if err != nil {
		return err
	}
	return errors.Join(d.keepBytes(u), d.keepNames(u))
}

func (d *Directory) keepBytes(u disk.Usage) error {
	name := filepath.Join(d.Path, reserveFile)
	if info, err := d.fs.Stat(name); err == nil && info.Size() >= reserveBytes || u.Free < reserveBytes*reserveShare {
		return nil
	}
	f, err := d.fs.OpenFile(name, disk.Write|disk.Create, 0o600)
	if err != nil {
		return err
	}
	if err = f.Allocate(0, reserveBytes); err == nil {
		err = f.Truncate(reserveBytes)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, d.fs.Remove(name))
	}
	return err
}

func (d *Directory) keepNames(u disk.Usage) error {
	if u.Names == 0 || u.FreeNames < namesKept*namesShare {
		return nil
	}
	dir := filepath.Join(d.Path, namesDir)
	if err := d.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i := range namesKept {
		name := filepath.Join(dir, fmt.Sprintf("%02d", i))
		if _, err := d.fs.Stat(name); err == nil {
			continue
		}
		f, err := d.fs.OpenFile(name, disk.Write|disk.Create, 0o600)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// giveNames removes some of the empty files, and reports whether there were any.
func (d *Directory) giveNames() bool {
	dir := filepath.Join(d.Path, namesDir)
	names, _ := d.fs.ReadDir(dir) // there may be none
	gave := 0
	for _, name := range names {
		if gave == namesStep {
			break
		}
		if d.fs.Remove(filepath.Join(dir, name)) == nil {
			gave++
		}
	}
	return gave > 0
}

// GiveReserve gives up a part of the reserve if the disk is full or need is true, and
// reports whether it did. One start needs little: the rest is for later starts.
func (d *Directory) GiveReserve(need bool) bool {
	u, err := d.fs.Statfs(d.Path)
	names := err == nil && u.FewNames(fewNames)
	if !need && err == nil && u.Free >= reserveStep && !names {
		return false
	}
	if names && d.giveNames() {
		return true
	}
	name := filepath.Join(d.Path, reserveFile)
	info, err := d.fs.Stat(name)
	if err != nil {
		return d.giveNames() // a quota need not show
	}
	if names || info.Size() <= reserveStep {
		return d.fs.Remove(name) == nil
	}
	f, err := d.fs.OpenFile(name, disk.Write, 0)
	if err != nil {
		return d.fs.Remove(name) == nil
	}
	return errors.Join(f.Truncate(info.Size()-reserveStep), f.Close()) == nil
}
