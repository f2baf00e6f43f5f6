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

// Names of links. What begins with a % and goes on with neither 2F nor 25 is none
// that a vDisk's name is written as.
const (
	linkDraft = "%new" // one that is on its way to its name
	linkCut   = "%~"   // stands before the hash of a name that is too long
)

var linkEscapes = strings.NewReplacer("%", "%25", "/", "%2F")

// linkName is what the link of a vDisk is called: each name has another one. It is
// the vDisk's name, of which "/" is written %2F and "%" %25, in one directory: a
// link a and a directory a, for a/b, could not be there together. What is too long
// ends with a hash of all of it.
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

// replaced is an error if there is another data directory now where this one was.
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

// sweepLinks removes the links that no attachment has: of what was detached,
// deleted or renamed, and those of older releases, which had directories. What is
// no link is somebody else's, and stays.
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

// removeLinks removes the links below a directory, and directories that are empty
// then.
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

// follow gives attachments the names that their vDisks have now, and their links
// with them. It reports whether one was renamed: that is to be recorded.
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

// followAll is follow of what there is now. What cannot be looked up is left for
// the next time.
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
