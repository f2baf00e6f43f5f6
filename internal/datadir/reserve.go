package datadir

import (
	"errors"
	"fmt"
	"path/filepath"

	"openvstorage/internal/disk"
)

// The reserve takes room that a start may need: DIR/reserve is a file of zeros, and
// the files in DIR/reserve.names are empty, where files are what a file system may run
// out of. On a full disk it is given up, so that what is there can be read, and what
// goes can go.
const (
	reserveFile  = "reserve"
	reserveBytes = 8 << 20
	reserveStep  = 1 << 20 // is given up at a time
	// reserveShare: there is none where it would be more than this share of what
	// is free.
	reserveShare = 16

	namesDir   = "reserve.names"
	namesKept  = 64 // a start makes about a dozen: sockets, and files of each group
	namesStep  = 16
	namesShare = 4

	// fewNames is how few files a file system may have left to make before that
	// counts as full.
	fewNames = 16
)

// KeepReserve makes of the reserve what is not there, if there is much room.
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

// giveNames gives a part of the files up, and reports whether there were any.
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

// GiveReserve gives a part of the reserve up if the disk is full, or need says so, and
// reports whether it did. A start takes little: the rest is for those after it.
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
