package asd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/format"

	"github.com/google/uuid"
)

const (
	identityName = "identity"
	identityNew  = "identity.new"
	newName      = "new"
)

// IdentityName is the file that makes a directory an ASD's.
const IdentityName = identityName

// LockName is the lock file in an ASD's directory. The process that has the ASD open
// holds it.
const LockName = "lock"

// ErrNoASD is matched by the error of Open for a directory that holds no ASD, or none
// any more. Only Create makes an ASD of a directory.
var ErrNoASD = errors.New("no ASD here")

// ErrClaimed is matched by the error of Claim for an ASD that another backend
// has claimed.
var ErrClaimed = errors.New("ASD is claimed by another backend")

// identityMax is the longest identity file that is read, in bytes: one of a newer
// release may be longer than ours.
const identityMax = 4096

// identityFixed is the length of an identity's fields before the node, by version.
var identityFixed = [...]int{1: 18, identityVersion: 34}

func appendIdentity(dst []byte, id Identity, incarnation uint64) []byte {
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindASD, Version: identityVersion, MinReader: identityVersion, Owner: id.ID, Incarnation: incarnation,
	})
	at := len(dst)
	dst = append(dst, id.Owner[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, id.Life)
	dst = binary.LittleEndian.AppendUint64(dst, id.Generation)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(id.Node)))
	dst = append(dst, id.Node...)
	return binary.LittleEndian.AppendUint32(dst, format.SeededCRC(incarnation, dst[at:]))
}

// decodeIdentity reads an identity and its version. It refuses whatever it does not
// know: a rewrite of the file would drop it.
func decodeIdentity(b []byte) (Identity, uint16, error) {
	h, err := format.DecodeRewritten(b, format.KindASD, identityVersion, 0)
	if err != nil {
		return Identity{}, 0, err
	}
	b = b[format.HeaderSize:]
	fixed := 0
	if h.Version > 0 {
		fixed = identityFixed[h.Version]
	}
	at := len(b) - 4
	if fixed == 0 || at < fixed {
		return Identity{}, 0, fmt.Errorf("%w: identity of version %d, %d bytes", format.ErrCorrupt, h.Version, len(b))
	}
	if got, want := format.SeededCRC(h.Incarnation, b[:at]), binary.LittleEndian.Uint32(b[at:]); got != want {
		return Identity{}, 0, fmt.Errorf("%w: CRC of the identity is %08x, not %08x", format.ErrCorrupt, got, want)
	}
	switch node := fixed + int(binary.LittleEndian.Uint16(b[fixed-2:])); {
	case node < at:
		return Identity{}, 0, fmt.Errorf("%w: disk identity with %d bytes behind the node", format.ErrNewer, at-node)
	case node > at || node-fixed > NodeMax:
		return Identity{}, 0, fmt.Errorf("%w: identity with a node of %d bytes", format.ErrCorrupt, node-fixed)
	}
	id := Identity{ID: h.Owner, Owner: uuid.UUID(b[:16]), Node: string(b[fixed:at])}
	if h.Version > 1 {
		id.Life, id.Generation = binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
	}
	return id, h.Version, nil
}

// Create makes an ASD in a directory. The directory must be empty; if it is absent,
// its parent must be there. The ASD is durable when Create returns nil.
func Create(fsys disk.FS, dir string, id Identity) error {
	if err := create(fsys, dir, id); err != nil {
		return fmt.Errorf("asd: create %s: %w", dir, err)
	}
	return nil
}

func create(fsys disk.FS, dir string, id Identity) error {
	if id.ID == uuid.Nil || len(id.Node) > NodeMax {
		return fmt.Errorf("%w: id %v, node of %d bytes", osd.ErrInvalid, id.ID, len(id.Node))
	}
	if err := disk.MakeDir(fsys, dir, 0o700); err != nil {
		return err
	}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		// What an earlier Create left half done is no obstacle.
		if name != newName && name != "lost+found" {
			return fmt.Errorf("it holds %q; name an empty directory", name)
		}
	}
	// The mount point of a disk is open to all: fragments are what vDisks hold.
	if _, err := fsys.Private(dir + "/."); err != nil {
		return fmt.Errorf("other users may read what is in it: %w; chmod 700 %s, as the user whom it belongs to", err, dir)
	}
	if err := disk.SyncName(fsys, dir); err != nil {
		return err
	}
	return writeIdentity(fsys, dir, id)
}

func writeIdentity(fsys disk.FS, dir string, id Identity) error {
	return replace(fsys, dir, newName, identityName, appendIdentity(nil, id, rand.Uint64()))
}

// replace gives a name to a file with the bytes b, in place of what had it.
func replace(fsys disk.FS, dir, temp, name string, b []byte) error {
	temp = path.Join(dir, temp)
	f, err := fsys.OpenFile(temp, disk.Write|disk.Create|disk.Truncate, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(temp, path.Join(dir, name))
	}
	if err != nil {
		fsys.Remove(temp)
		return err
	}
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("%w: %w", errNameNotSynced, err)
	}
	return nil
}

// errNameNotSynced is matched by the error of replace if the file has its new name, but
// the sync of the directory failed.
var errNameNotSynced = errors.New("a new name may not outlive a power cut")

// ReadIdentity reads the identity of the ASD in a directory. It opens nothing else.
func ReadIdentity(fsys disk.FS, dir string) (Identity, error) {
	id, _, err := readIdentity(fsys, dir)
	return id, err
}

// readIdentity is ReadIdentity with the version of the file.
func readIdentity(fsys disk.FS, dir string) (Identity, uint16, error) {
	name := path.Join(dir, identityName)
	f, err := fsys.OpenFile(name, 0, 0)
	return readOpened(f, name, err)
}

// readOpened reads and closes an identity file that was opened, or returns what err, the
// error of the open, means.
func readOpened(f disk.File, name string, err error) (Identity, uint16, error) {
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w; mount its disk, or make an ASD", ErrNoASD, err)
		}
		return Identity{}, 0, err
	}
	b := make([]byte, identityMax+1)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return Identity{}, 0, err
	}
	id, version, err := decodeIdentity(b[:n])
	switch {
	case errors.Is(err, format.ErrNewer):
		return Identity{}, 0, fmt.Errorf("%s: %w; open it with that release", name, err)
	case err != nil:
		return Identity{}, 0, fmt.Errorf("%s: %w; restore the file", name, err)
	}
	return id, version, nil
}
