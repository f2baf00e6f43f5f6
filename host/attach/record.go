package attach

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
)

// attachment is a vDisk that is attached. Its exported fields are recorded, as JSON.
type attachment struct {
	ID       uuid.UUID `json:"id"`             // of the vDisk
	Name     string    `json:"name"`           // that the link has
	Kind     string    `json:"kind,omitempty"` // since version 2; before, all are loops
	Device   string    `json:"device"`         // that it had last
	ReadOnly bool      `json:"readOnly,omitempty"`

	// Of NBD devices, since version 2. BlockSize of both.
	BlockSize   uint32 `json:"blockSize,omitempty"` // 0: 512
	Connections int    `json:"connections,omitempty"`
	Timeout     uint32 `json:"timeout,omitempty"`     // seconds
	DeadTimeout uint32 `json:"deadTimeout,omitempty"` // seconds
	Boot        string `json:"boot,omitempty"`        // of the machine, in which
	PID         string `json:"pid,omitempty"`         // this process connected it

	size   uint64 // that the device was told
	dead   bool   // a connection of it died and was not replaced
	reason string // why it is not attached
	why    string // why it is a loop, though nobody asked for one
}

// attachments is the content of DIR/attachments. Version 1 knows loop devices only.
type attachments struct {
	Version     int          `json:"version"`
	Attachments []attachment `json:"attachments"`
}

const (
	attachmentsVersion = 2
	attachmentsFile    = "attachments"
	attachmentsMax     = 1 << 20 // bytes
)

// recordFile is the file DIR/attachments.
type recordFile struct {
	fs  disk.FS
	dir string // the data directory
}

func (r recordFile) name() string { return filepath.Join(r.dir, attachmentsFile) }

// read returns what is recorded. Without a file that is nothing.
func (r recordFile) read() ([]attachment, error) {
	name := r.name()
	f, err := r.fs.OpenFile(name, 0, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.NewSectionReader(f, 0, attachmentsMax+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(raw) > attachmentsMax {
		return nil, fmt.Errorf("read %s: longer than the %d bytes that it may have; remove it, and attach the vDisks again", name, attachmentsMax)
	}
	list, err := decodeAttachments(raw)
	if errors.Is(err, format.ErrNewer) {
		return nil, fmt.Errorf("read %s: %w; nothing was changed: use that release", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w; remove it, and attach the vDisks again", name, err)
	}
	return list, nil
}

// decodeAttachments decodes the file. It refuses a version or a field that this release
// does not know: the file is written anew as a whole, and the field would be lost.
func decodeAttachments(raw []byte) ([]attachment, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	switch {
	case v.Version > attachmentsVersion:
		return nil, fmt.Errorf("%w: version %d, this release reads up to %d", format.ErrNewer, v.Version, attachmentsVersion)
	case v.Version < 1:
		return nil, fmt.Errorf("version %d, which does not exist", v.Version)
	}
	var a attachments
	known := json.NewDecoder(bytes.NewReader(raw))
	known.DisallowUnknownFields()
	if err := known.Decode(&a); err != nil {
		if field, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
			return nil, fmt.Errorf("%w: field %s, which this release does not know", format.ErrNewer, field)
		}
		return nil, err
	}
	for i := range a.Attachments {
		at := &a.Attachments[i]
		if a.Version == 1 {
			if at.Kind != "" || at.BlockSize != 0 || at.Connections != 0 || at.Timeout != 0 || at.DeadTimeout != 0 || at.Boot != "" || at.PID != "" {
				return nil, fmt.Errorf("%w: vDisk %q: has fields of version 2 in a file of version 1", format.ErrNewer, at.Name)
			}
			at.Kind = KindLoop
		}
		if !slices.Contains([]string{KindNBD, KindLoop, KindAuto, ""}, at.Kind) {
			return nil, fmt.Errorf("%w: vDisk %q: is attached as kind %q, which this release does not know", format.ErrNewer, at.Name, at.Kind)
		}
		if err := at.check(); err != nil {
			return nil, fmt.Errorf("vDisk %q: %w", at.Name, err)
		}
	}
	return a.Attachments, nil
}

// write puts the record in place of the one before, durably.
func (r recordFile) write(list []attachment) error {
	raw, err := json.MarshalIndent(attachments{attachmentsVersion, list}, "", "\t")
	if err != nil {
		return err
	}
	name := r.name()
	draft := name + ".new"
	f, err := r.fs.OpenFile(draft, disk.Write|disk.Create|disk.Truncate, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.WriteAt(append(raw, '\n'), 0)
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = r.fs.Rename(draft, name)
	}
	if err == nil {
		err = r.fs.SyncDir(r.dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
