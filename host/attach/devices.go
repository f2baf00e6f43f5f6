package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"openvstorage/internal/bell"
	"openvstorage/internal/disk"
	"openvstorage/nbd"
)

// Devices makes block devices of vDisks: NBD devices of the kernel on sockets of our own
// server, or loop devices over the files of the mount. The file DIR/attachments records
// which vDisks have one. The next start makes these devices again, or gives new sockets
// to those that wait for it. In DIR/dev there is a symbolic link to the device that a
// vDisk has now (linkName).
//
// No method reads, writes or opens such a device: whoever waits for a device waits for
// this process. All methods are safe for concurrent use, except Open, which is called
// first.
type Devices struct {
	of     VDisks
	fs     disk.FS
	dir    string // the data directory
	record recordFile
	loops  loopDevices
	kernel *nbdDevices
	logger *slog.Logger

	mu      sync.Mutex
	list    []attachment
	stopped bool

	grown bell.Bell // sizes are to be looked at
	stop  context.CancelFunc
	done  sync.WaitGroup
}

var errDevicesStopped = fmt.Errorf("%w: ovs up is stopping", ErrBusy)

// Config is what Devices stand on.
type Config struct {
	VDisks VDisks
	FS     disk.FS
	Dir    string      // the data directory
	Server *nbd.Server // that serves the vDisks by their names
	// Mount is where the vDisks are files NAME.raw, as the kernel names it; "": nowhere.
	Mount string
	// Loop has another process do something with a loop device, and returns what
	// that prints: attach FILE --device=DEVICE --read-only=BOOL --block-size=N,
	// detach DEVICE, or grow DEVICE FILE SIZE (Grow).
	Loop   func(ctx context.Context, args ...string) (string, error)
	Logger *slog.Logger
}

// New returns Devices that know of no attachment yet.
func New(c Config) *Devices {
	return &Devices{
		of: c.VDisks, fs: c.FS, dir: c.Dir, record: recordFile{c.FS, c.Dir}, loops: loopDevices{c.Mount, c.Loop, c.Logger}, kernel: newNBDDevices(c.Dir, c.Server, c.Logger),
		logger: c.Logger,
	}
}

// Open reads what was attached, and attaches it again. A vDisk that cannot be attached
// keeps nothing else from starting: it is listed with the reason.
func (d *Devices) Open(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	recorded, err := d.record.read()
	if err != nil {
		return err
	}
	d.list = slices.Clone(recorded)
	vdisks, err := d.vdisks(ctx)
	if err != nil {
		return err
	}
	d.list = slices.DeleteFunc(d.list, func(a attachment) bool {
		if vdisks[a.ID].Name != "" {
			return false
		}
		// The vDisk was deleted.
		if a.Kind != KindNBD {
			d.loops.release(a)
		} else if d.present(a) {
			if err := d.take(a); err != nil {
				d.logger.Warn("an old block device stays", "device", a.Device, "err", err)
			}
		}
		return true
	})
	d.sweepLinks() // directories of an older release would be in the way
	for i := range d.list {
		a := &d.list[i]
		a.Name = vdisks[a.ID].Name
		a.size = vdisks[a.ID].Size
		if err := d.attach(ctx, a, true); err != nil {
			a.reason = err.Error()
			d.logger.Error("vDisk is not attached", "vdisk", a.Name, "err", err)
			continue
		}
		d.logger.Info("vDisk is attached again", "vdisk", a.Name, "device", a.Device, "link", d.link(a.Name))
	}
	d.sweepLinks()
	back, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	d.done.Go(func() { d.watch(back) })
	if slices.Equal(recorded, d.list) {
		return nil
	}
	return d.record.write(d.list)
}

// vdisks are all vDisks, by id.
func (d *Devices) vdisks(ctx context.Context) (map[uuid.UUID]VDisk, error) {
	list, err := d.of.List(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[uuid.UUID]VDisk, len(list))
	for _, v := range list {
		all[v.ID] = v
	}
	return all, nil
}

// attach makes the device of an attachment, and the link to it. again says that the
// attachment is recorded, so its device may be there still.
func (d *Devices) attach(ctx context.Context, a *attachment, again bool) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("vDisk %q: block devices are made by root; start `ovs up` as root (the service: with devices.conf)", a.Name)
	}
	if a.Kind == KindNBD {
		err = d.kernel.attach(ctx, a, again)
	} else {
		err = d.loops.attach(ctx, a)
	}
	if err != nil {
		return fmt.Errorf("vDisk %q: %w", a.Name, err)
	}
	err = d.setLink(*a)
	if err != nil && !again { // one that is in use stays
		err = errors.Join(err, d.take(*a))
	}
	if err != nil {
		return fmt.Errorf("vDisk %q: %w", a.Name, err)
	}
	if a.Kind == KindNBD {
		d.kernel.listen(d.done.Go, d.died)
	}
	return nil
}

// take takes the device of an attachment away.
func (d *Devices) take(a attachment) error {
	if a.Kind == KindNBD {
		return d.kernel.detach(a)
	}
	return d.loops.detach(a)
}

// Attach makes a block device of a vDisk. If the vDisk is attached already, in the way
// that is asked for, its attachment is returned as it is.
func (d *Devices) Attach(ctx context.Context, name string, opt Options) (Attachment, error) {
	want, err := asked(opt)
	if err != nil {
		return Attachment{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := d.of.Info(ctx, name)
	if err != nil {
		return Attachment{}, err
	}
	if d.stopped {
		return Attachment{}, errDevicesStopped
	}
	if err := d.followAll(ctx); err != nil {
		return Attachment{}, err
	}
	i := d.find(info.ID)
	if i >= 0 {
		d.notice(&d.list[i])
	}
	switch {
	case i < 0:
		want.ID, want.Name = info.ID, name
		if err := d.choose(ctx, &want); err != nil {
			return Attachment{}, fmt.Errorf("vDisk %q: %w", name, err)
		}
		d.list = append(d.list, want)
		i = len(d.list) - 1
	case !d.list[i].like(opt):
		return Attachment{}, fmt.Errorf("vDisk %q: attached as %s already, in another way; detach it first: %w", name, d.list[i].Device, ErrInvalid)
	case d.list[i].reason == "":
		return d.show(d.list[i]), nil
	}
	a := &d.list[i]
	a.size = info.Size
	if err := d.attach(ctx, a, a.reason != ""); err != nil {
		if a.reason != "" {
			a.reason = err.Error() // it is recorded, and stays so
		} else {
			d.list = slices.Delete(d.list, i, i+1)
		}
		return Attachment{}, err
	}
	a.reason = ""
	if err := d.record.write(d.list); err != nil {
		err = errors.Join(err, d.take(*a))
		d.list = slices.Delete(d.list, i, i+1)
		d.sweepLinks()
		return Attachment{}, err
	}
	return d.show(*a), nil
}

// choose picks the kind of device if that was left to us: NBD where the kernel has it.
func (d *Devices) choose(ctx context.Context, a *attachment) error {
	if a.Kind != KindAuto {
		return nil
	}
	err := d.kernel.available(ctx)
	switch {
	case err == nil:
		a.Kind = KindNBD
	case d.loops.mount == "":
		return fmt.Errorf("%w: no block device can be made: either load the module nbd (modprobe nbd), or start `ovs up` with --mount DIR for loop devices: %w", ErrInvalid, err)
	default:
		a.Kind, a.why = KindLoop, err.Error()
		a.Connections, a.Timeout, a.DeadTimeout = 0, 0, 0
	}
	return nil
}

func (d *Devices) find(id uuid.UUID) int {
	return slices.IndexFunc(d.list, func(a attachment) bool { return a.ID == id })
}

// Detach takes away the block device of a vDisk. A device that is in use stays, with
// ErrBusy, unless force is set.
func (d *Devices) Detach(ctx context.Context, name string, force bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := d.of.Info(ctx, name)
	if err != nil {
		return err
	}
	if d.stopped {
		return errDevicesStopped
	}
	if err := d.followAll(ctx); err != nil {
		return err
	}
	i := d.find(info.ID)
	if i < 0 {
		return fmt.Errorf("vDisk %q: not attached: %w", name, ErrNotFound)
	}
	a := d.list[i]
	if d.present(a) {
		if users := lastingUsers(ctx, a.Device, usersWait); len(users) > 0 && !force {
			return fmt.Errorf("vDisk %q: %w: %s is in use: %s; end that first", name, ErrBusy, a.Device, usersText(users))
		}
		if err := d.take(a); err != nil {
			return err
		}
	}
	d.list = slices.Delete(d.list, i, i+1)
	d.sweepLinks()
	return d.record.write(d.list)
}

// present reports whether the kernel has the device of an attachment, even if the device
// does not work.
func (d *Devices) present(a attachment) bool {
	if a.Kind == KindNBD {
		return a.Device != "" && d.kernel.ours(a)
	}
	return a.reason == "" && d.loops.ours(a)
}

// Attached returns all vDisks that are attached, in order of name.
func (d *Devices) Attached(ctx context.Context) ([]Attachment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.followAll(ctx); err != nil {
		d.logger.Warn("attached vDisks may have other names by now", "err", err)
	}
	list := make([]Attachment, len(d.list))
	for i := range d.list {
		d.notice(&d.list[i])
		list[i] = d.show(d.list[i])
	}
	slices.SortFunc(list, func(a, b Attachment) int { return strings.Compare(a.VDisk, b.VDisk) })
	return list, nil
}

// notice finds out whether somebody else took a device away.
func (d *Devices) notice(a *attachment) {
	if a.reason == "" && !d.present(*a) {
		a.reason = fmt.Sprintf("somebody else has taken %s away; attach the vDisk again, or detach it", a.Device)
	}
}

func (d *Devices) show(a attachment) Attachment {
	out := Attachment{
		VDisk: a.Name, ID: a.ID, Kind: a.Kind, Device: a.Device, Link: d.link(a.Name), ReadOnly: a.ReadOnly, Reason: a.reason, Why: a.why,
		BlockSize: a.blockSize(), Connections: a.Connections, Timeout: a.Timeout, DeadTimeout: a.DeadTimeout,
	}
	if a.reason != "" {
		out.Device = ""
	}
	return out
}
