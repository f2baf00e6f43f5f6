package asd

import (
	"context"
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

// LockName is the file in an ASD's directory that the process holds which has it
// open.
const LockName = "lock"

// ErrNoASD is matched by the error of Open for a directory that holds no ASD,
// or no longer: it is never made one without Create.
var ErrNoASD = errors.New("no ASD here")

// ErrClaimed is matched by the error of Claim for an ASD that another backend
// has claimed.
var ErrClaimed = errors.New("ASD is claimed by another backend")

// identityMax is the longest identity file in bytes.
const identityMax = format.HeaderSize + 18 + NodeMax + 4

func appendIdentity(dst []byte, id Identity, incarnation uint64) []byte {
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindASD, Version: Version, MinReader: Version, Owner: id.ID, Incarnation: incarnation,
	})
	at := len(dst)
	dst = append(dst, id.Owner[:]...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(id.Node)))
	dst = append(dst, id.Node...)
	return binary.LittleEndian.AppendUint32(dst, format.SeededCRC(incarnation, dst[at:]))
}

func decodeIdentity(b []byte) (Identity, error) {
	h, err := format.DecodeHeader(b, format.KindASD, Version, 0)
	if err != nil {
		return Identity{}, err
	}
	b = b[format.HeaderSize:]
	if len(b) < 22 || len(b) != 22+int(binary.LittleEndian.Uint16(b[16:])) {
		return Identity{}, fmt.Errorf("%w: identity of %d bytes", format.ErrCorrupt, len(b))
	}
	at := len(b) - 4
	if got, want := format.SeededCRC(h.Incarnation, b[:at]), binary.LittleEndian.Uint32(b[at:]); got != want {
		return Identity{}, fmt.Errorf("%w: CRC of the identity is %08x, not %08x", format.ErrCorrupt, got, want)
	}
	return Identity{ID: h.Owner, Owner: uuid.UUID(b[:16]), Node: string(b[18:at])}, nil
}

// Create makes an ASD in a directory, which must be empty, or absent under a
// directory that is there. It is durable when Create returns nil.
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

// errNameNotSynced is matched by the error of replace if the file has its name,
// and it is not known whether the medium knows that.
var errNameNotSynced = errors.New("a new name may not outlive a power cut")

// ReadIdentity says who the ASD in a directory is. It opens nothing else.
func ReadIdentity(fsys disk.FS, dir string) (Identity, error) {
	name := path.Join(dir, identityName)
	f, err := fsys.OpenFile(name, 0, 0)
	return readIdentity(f, name, err)
}

// readIdentity reads and closes what was opened under a name, or was not with err.
func readIdentity(f disk.File, name string, err error) (Identity, error) {
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w; mount its disk, or make an ASD", ErrNoASD, err)
		}
		return Identity{}, err
	}
	b := make([]byte, identityMax+1)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return Identity{}, err
	}
	id, err := decodeIdentity(b[:n])
	if err != nil {
		return Identity{}, fmt.Errorf("%s: %w; restore the file", name, err)
	}
	return id, nil
}

// Identity says who the ASD is.
func (a *ASD) Identity() Identity {
	a.claiming <- struct{}{}
	defer func() { <-a.claiming }()
	return a.identity
}

// Claim gives the ASD its owner, durably. An ASD that has that owner stays as
// it is; one that has another is refused with ErrClaimed.
func (a *ASD) Claim(ctx context.Context, owner uuid.UUID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if owner == uuid.Nil {
		return fmt.Errorf("asd: claim %s: %w: no owner", a.opt.Dir, osd.ErrInvalid)
	}
	if err := a.writable(); err != nil {
		return err
	}
	a.claiming <- struct{}{}
	defer func() { <-a.claiming }()
	switch a.identity.Owner {
	case owner:
		return nil
	case uuid.Nil:
	default:
		return fmt.Errorf("asd: claim %s: %w: %v", a.opt.Dir, ErrClaimed, a.identity.Owner)
	}
	id := a.identity
	id.Owner = owner
	// Under a name of its own: a segment may be on its way under newName.
	err := replace(a.opt.FS, a.opt.Dir, identityNew, identityName, appendIdentity(nil, id, rand.Uint64()))
	if errors.Is(err, errNameNotSynced) && !noDescriptor(err) {
		err = a.fail(err) // whose it is is seen when it is opened anew (rule P6)
	}
	if err != nil {
		return fmt.Errorf("asd: claim %s: %w", a.opt.Dir, err)
	}
	a.identity.Owner = owner // the rest never changes
	return nil
}
