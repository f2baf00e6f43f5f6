package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"openvstorage/blockdev"
	"openvstorage/internal/control"
	"openvstorage/internal/disk"
	"openvstorage/volumedriver"
)

// devices makes block devices of vDisks: loop devices over the files of the
// mount. Which ones is recorded in DIR/attachments, so that the next start
// makes them again: after a kill the old ones answer nothing but errors.
// DIR/dev/NAME is a symbolic link to the device that vDisk NAME has now.
type devices struct {
	host   host
	fs     disk.FS
	dir    string // the data directory
	mount  string
	logger *slog.Logger

	mu   sync.Mutex
	list []attachment
}

// attachment is what is recorded of one, as JSON.
type attachment struct {
	ID       uuid.UUID `json:"id"`     // of the vDisk
	Name     string    `json:"name"`   // that the link has
	Device   string    `json:"device"` // that it had last
	ReadOnly bool      `json:"readOnly,omitempty"`
	reason   string    // why it is not attached
}

// attachments is the file. Version 1.
type attachments struct {
	Version     int          `json:"version"`
	Attachments []attachment `json:"attachments"`
}

const (
	attachmentsVersion = 1
	attachmentsFile    = "attachments"
	attachmentsMax     = 1 << 20 // bytes
	linksDir           = "dev"
)

var _ control.Devices = (*devices)(nil)

// openDevices reads what was attached, and attaches it again. That one cannot
// be attached keeps nothing else from starting: it is listed with the reason.
func openDevices(ctx context.Context, h host, fsys disk.FS, dir, mount string, logger *slog.Logger) (*devices, error) {
	d := &devices{host: h, fs: fsys, dir: dir, mount: mount, logger: logger}
	if err := d.read(); err != nil {
		return nil, err
	}
	infos, err := h.List(ctx)
	if err != nil {
		return nil, err
	}
	names := map[uuid.UUID]string{}
	for _, i := range infos {
		names[i.ID] = i.Name
	}
	was := slices.Clone(d.list)
	d.list = slices.DeleteFunc(d.list, func(a attachment) bool {
		if names[a.ID] == "" {
			d.unlink(a.Name) // the vDisk was deleted
		}
		return names[a.ID] == ""
	})
	for i := range d.list {
		a := &d.list[i]
		if name := names[a.ID]; name != a.Name {
			d.unlink(a.Name)
			a.Name = name
		}
		d.release(*a)
		if err := d.attach(a); err != nil {
			a.reason = err.Error()
			logger.Error("vDisk is not attached", "vdisk", a.Name, "err", err)
			continue
		}
		logger.Info("vDisk is attached again", "vdisk", a.Name, "device", a.Device)
	}
	if slices.Equal(was, d.list) {
		return d, nil
	}
	return d, d.write()
}

// release takes the file away from the device that an attachment had, if that
// is one over the file of a mount that is dead, or of this one, in which it may
// have another name by now.
func (d *devices) release(a attachment) {
	b := blockdev.Backing(a.Device)
	if b == "" || !strings.HasSuffix(b, "/"+a.Name+".raw") && !d.mounted(b) {
		return
	}
	if err := blockdev.Detach(a.Device); err != nil {
		d.logger.Warn("an old block device stays", "device", a.Device, "err", err)
	}
}

// mounted reports whether a path, as the kernel has it, is that of a vDisk's file
// in the mount.
func (d *devices) mounted(name string) bool {
	dir, err := filepath.EvalSymlinks(d.mount)
	return err == nil && strings.HasPrefix(name, dir+"/") && strings.HasSuffix(name, ".raw")
}

// attach makes the device of an attachment, and the link to it.
func (d *devices) attach(a *attachment) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("vDisk %s: block devices are made by root; start `ovs up` as root", a.Name)
	}
	a.Device, err = blockdev.Attach(filepath.Join(d.mount, a.Name+".raw"), blockdev.Options{Device: a.Device, ReadOnly: a.ReadOnly})
	if err != nil {
		return fmt.Errorf("vDisk %s: %w", a.Name, err)
	}
	link := d.link(a.Name)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return fmt.Errorf("vDisk %s: %w", a.Name, errors.Join(err, blockdev.Detach(a.Device)))
	}
	draft := link + ".new"
	_ = os.Remove(draft)
	if err := cmp.Or(os.Symlink(a.Device, draft), os.Rename(draft, link)); err != nil {
		return fmt.Errorf("vDisk %s: %w", a.Name, errors.Join(err, blockdev.Detach(a.Device)))
	}
	return nil
}

func (d *devices) link(name string) string { return filepath.Join(d.dir, linksDir, name) }

// unlink removes a link, and the directories that are empty then.
func (d *devices) unlink(name string) {
	_ = os.Remove(d.link(name))
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		if os.Remove(d.link(dir)) != nil {
			return
		}
	}
}

// Attach implements control.Devices. One that is attached is returned as it is,
// if it is asked for in the same way.
func (d *devices) Attach(ctx context.Context, name string, readOnly bool) (control.Attachment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := d.host.Info(ctx, name)
	if err != nil {
		return control.Attachment{}, err
	}
	i := d.find(info.ID)
	switch {
	case i < 0:
		d.list = append(d.list, attachment{ID: info.ID, Name: name, ReadOnly: readOnly})
		i = len(d.list) - 1
	case d.list[i].ReadOnly != readOnly:
		return control.Attachment{}, fmt.Errorf("vDisk %s is attached as %s already, in the other way; detach it first: %w", name, d.list[i].Device, volumedriver.ErrInvalid)
	case d.list[i].reason == "":
		return d.show(d.list[i]), nil
	}
	a := &d.list[i]
	if err := d.attach(a); err != nil {
		d.list = slices.Delete(d.list, i, i+1)
		return control.Attachment{}, err
	}
	a.reason = ""
	if err := d.write(); err != nil {
		err = errors.Join(err, blockdev.Detach(a.Device))
		d.unlink(a.Name)
		d.list = slices.Delete(d.list, i, i+1)
		return control.Attachment{}, err
	}
	return d.show(*a), nil
}

func (d *devices) find(id uuid.UUID) int {
	return slices.IndexFunc(d.list, func(a attachment) bool { return a.ID == id })
}

// Detach implements control.Devices.
func (d *devices) Detach(ctx context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := d.host.Info(ctx, name)
	if err != nil {
		return err
	}
	i := d.find(info.ID)
	if i < 0 {
		return fmt.Errorf("vDisk %s is not attached: %w", name, volumedriver.ErrNotFound)
	}
	a := d.list[i]
	if a.reason == "" {
		if err := blockdev.Detach(a.Device); err != nil {
			return err
		}
	}
	d.unlink(a.Name)
	d.list = slices.Delete(d.list, i, i+1)
	return d.write()
}

// Attached implements control.Devices.
func (d *devices) Attached(context.Context) ([]control.Attachment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]control.Attachment, len(d.list))
	for i, a := range d.list {
		list[i] = d.show(a)
	}
	slices.SortFunc(list, func(a, b control.Attachment) int { return strings.Compare(a.VDisk, b.VDisk) })
	return list, nil
}

func (d *devices) show(a attachment) control.Attachment {
	out := control.Attachment{VDisk: a.Name, ID: a.ID, Device: a.Device, Link: d.link(a.Name), ReadOnly: a.ReadOnly, Reason: a.reason}
	if a.reason != "" {
		out.Device = ""
	}
	return out
}

// close takes all devices away; they stay recorded. Those in use go with their
// last user, who is told by the mount's end.
func (d *devices) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.list {
		if a.reason == "" {
			d.release(a)
		}
	}
}

func (d *devices) read() error {
	name := filepath.Join(d.dir, attachmentsFile)
	f, err := d.fs.OpenFile(name, 0, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.NewSectionReader(f, 0, attachmentsMax))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	var a attachments
	if err := json.Unmarshal(raw, &a); err != nil {
		return fmt.Errorf("read %s: %w; remove it, and attach the vDisks again", name, err)
	}
	if a.Version != attachmentsVersion {
		return fmt.Errorf("read %s: version %d, this release reads %d", name, a.Version, attachmentsVersion)
	}
	d.list = a.Attachments
	return nil
}

// write puts the record in place of the one before, durably.
func (d *devices) write() error {
	raw, err := json.MarshalIndent(attachments{attachmentsVersion, d.list}, "", "\t")
	if err != nil {
		return err
	}
	name := filepath.Join(d.dir, attachmentsFile)
	draft := name + ".new"
	f, err := d.fs.OpenFile(draft, disk.Write|disk.Create|disk.Truncate, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.WriteAt(append(raw, '\n'), 0)
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.fs.Rename(draft, name)
	}
	if err == nil {
		err = d.fs.SyncDir(d.dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
