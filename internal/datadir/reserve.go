package datadir

import (
	"errors"
	"path/filepath"

	"openvstorage/internal/disk"
)

// The reserve, DIR/reserve, is a file of zeros that takes room which a start may
// need: on a full disk it is given up, so that what is there can be read, and what
// goes can go.
const (
	reserveFile  = "reserve"
	reserveBytes = 8 << 20
	reserveStep  = 1 << 20 // is given up at a time
	// reserveShare: there is none where it would be more than this share of what
	// is free.
	reserveShare = 16
	// fewNames is how few files a file system may have left to make before that
	// counts as full.
	fewNames = 16
)

// KeepReserve makes the reserve if it is not there, and there is much room.
func (d *Directory) KeepReserve() error {
	name := filepath.Join(d.Path, reserveFile)
	if info, err := d.fs.Stat(name); err == nil && info.Size() >= reserveBytes {
		return nil
	}
	u, err := d.fs.Statfs(d.Path)
	if err != nil || u.Free < reserveBytes*reserveShare {
		return err
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

// GiveReserve gives a part of the reserve up if the disk is full, or need says so, and
// reports whether it did. A start takes little: the rest is for those after it.
func (d *Directory) GiveReserve(need bool) bool {
	u, err := d.fs.Statfs(d.Path)
	names := err == nil && u.FewNames(fewNames)
	if !need && err == nil && u.Free >= reserveStep && !names {
		return false
	}
	name := filepath.Join(d.Path, reserveFile)
	info, err := d.fs.Stat(name)
	if err != nil {
		return false
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
