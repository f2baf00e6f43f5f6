package attach

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"openvstorage/internal/datadir"
)

// linksDir is where links are in the data directory.
const linksDir = "dev"

// linkMax is the longest name that a file has, in bytes.
const linkMax = 255

// Names of other links. No name of a vDisk is written so: in that, every % is followed
// by 2F or 25.
const (
	linkDraft = "%new" // one that is on its way to its name
	linkCut   = "%~"   // stands before the hash of a name that is too long
)

var linkEscapes = strings.NewReplacer("%", "%25", "/", "%2F")

// linkName is what the link of a vDisk is called; no two names of vDisks give the same.
// All links are in one directory, as a link a and a directory a, for a/b, could not be
// there together. So "/" is written %2F, and "%" is written %25. A name that gets too
// long ends with a hash of all of it.
func linkName(name string) string {
	escaped := linkEscapes.Replace(name)
	if len(escaped) <= linkMax {
		return escaped
	}
	sum := sha256.Sum256([]byte(name))
	hash := linkCut + hex.EncodeToString(sum[:])
	head := escaped[:linkMax-len(hash)]
	for !utf8.ValidString(head) {
		head = head[:len(head)-1]
	}
	if i := strings.LastIndexByte(head, '%'); i > len(head)-3 && i >= 0 {
		head = head[:i]
	}
	return head + hash
}

func (d *Devices) link(name string) string { return filepath.Join(d.dir, linksDir, linkName(name)) }

// replaced is an error if another data directory is now where this one was.
func (d *Devices) replaced() error {
	if _, err := d.fs.Stat(d.dir); errors.Is(err, datadir.ErrReplaced) {
		return err
	}
	return nil
}

// setLink makes the link of an attachment lead to its device.
func (d *Devices) setLink(a attachment) error {
	if err := d.replaced(); err != nil {
		return err
	}
	dir := filepath.Join(d.dir, linksDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	draft := filepath.Join(dir, linkDraft)
	_ = os.Remove(draft)
	return cmp.Or(os.Symlink(a.Device, draft), os.Rename(draft, d.link(a.Name)))
}

// sweepLinks removes the links that no attachment has: those of vDisks that were
// detached, deleted or renamed, and those of older releases, which had directories. A
// file that is not a link is somebody else's, and stays.
func (d *Devices) sweepLinks() {
	if d.replaced() != nil {
		return
	}
	wanted := make(map[string]bool)
	for _, a := range d.list {
		if a.reason == "" {
			wanted[linkName(a.Name)] = true
		}
	}
	dir := filepath.Join(d.dir, linksDir)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		switch name := filepath.Join(dir, e.Name()); {
		case e.IsDir():
			removeLinks(name)
		case e.Type() == fs.ModeSymlink && !wanted[e.Name()]:
			_ = os.Remove(name)
		}
	}
	_ = os.Remove(dir) // if nothing is attached
}

// removeLinks removes the links below a directory, and then the directories that are
// empty.
func removeLinks(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		switch name := filepath.Join(dir, e.Name()); {
		case e.IsDir():
			removeLinks(name)
		case e.Type() == fs.ModeSymlink:
			_ = os.Remove(name)
		}
	}
	_ = os.Remove(dir)
}

// follow gives attachments, and their links, the names that their vDisks have now. It
// reports whether one was renamed, which is to be recorded.
func (d *Devices) follow(vdisks map[uuid.UUID]VDisk) (renamed bool) {
	for i := range d.list {
		a := &d.list[i]
		if now := vdisks[a.ID].Name; now != "" && now != a.Name {
			a.Name, renamed = now, true
		}
	}
	if !renamed {
		return false
	}
	// All of them: names may have been exchanged.
	for _, a := range d.list {
		if a.reason != "" {
			continue
		}
		if err := d.setLink(a); err != nil {
			d.logger.Warn("the link of a block device was not renamed", "vdisk", a.Name, "device", a.Device, "err", err)
		}
	}
	d.sweepLinks()
	return true
}

// followAll has attachments follow the names that vDisks have now. If these cannot be
// read it fails, and the next call does it.
func (d *Devices) followAll(ctx context.Context) error {
	if len(d.list) == 0 {
		return nil
	}
	vdisks, err := d.vdisks(ctx)
	if err != nil {
		return fmt.Errorf("names of attached vDisks: %w", err)
	}
	if d.follow(vdisks) {
		if err := d.record.write(d.list); err != nil { // the next start finds the names, too
			d.logger.Warn("names of attached vDisks were not recorded", "err", err)
		}
	}
	return nil
}
