package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"openvstorage/internal/naming"
)

// File is an image in a file that gets its name only when the image is whole.
type File struct {
	*os.File
	name string // without symbolic links
}

// Target is the name that the image gets, without symbolic links.
func (f *File) Target() string { return f.name }

// linksMax is how many symbolic links a name may lead over, as in Linux.
const linksMax = 40

// Create begins the image of a name. It replaces only a plain file. If the name is a
// symbolic link, it replaces or makes the file that the link leads to. The image gets
// the mode, the owner and the access list of the file that it replaces. Where that is
// impossible Create fails, and nothing is begun.
func Create(name string) (*File, error) {
	if name == "" {
		return nil, refusef("the name of the image is empty")
	}
	// The file is looked at before links are read, because the links of /dev/stdout lead
	// to no name.
	if there, err := os.Stat(name); err == nil && !there.Mode().IsRegular() {
		return nil, noFile(name)
	}
	name, err := target(name)
	if err != nil {
		return nil, err
	}
	old, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return nil, err
	case !old.Mode().IsRegular():
		return nil, noFile(name)
	}
	// The draft has a short name, however long the name of the image is.
	f, err := os.CreateTemp(dirOf(name), ".ovs-export-*.part")
	if err != nil {
		return nil, explainDir(name, err)
	}
	image := &File{f, name}
	if old != nil {
		if err := image.resemble(old); err != nil {
			return nil, errors.Join(err, image.Abandon())
		}
	}
	return image, nil
}

func noFile(name string) error {
	return refusef("%s is no plain file: give another name, or \"-\" and write it with dd", name)
}

// dirOf is the directory of a name. It does not clean the name, as filepath.Dir does:
// ".." behind a symbolic link is not where it seems to be.
func dirOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:max(i, 1)]
	}
	return "."
}

// explainDir adds to the error of a file that cannot be made what is wrong with its
// directory.
func explainDir(name string, err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return fmt.Errorf("no file can be made in %s: %w", dirOf(name), e.Err)
	}
	return err
}

// target follows the symbolic links that the last part of a name leads over.
func target(name string) (string, error) {
	for range linksMax {
		to, err := os.Readlink(name)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EINVAL): // no link
			return name, nil
		case err != nil:
			return "", err
		case !filepath.IsAbs(to):
			if dir := dirOf(name); dir != "." {
				to = dir + "/" + to
			}
		}
		name = to
	}
	return "", &fs.PathError{Op: "open", Path: name, Err: unix.ELOOP}
}

// resemble gives the image what makes the replaced file usable for others: owner, mode,
// and access list.
func (f *File) resemble(old fs.FileInfo) error {
	was, now := old.Sys().(*syscall.Stat_t), &syscall.Stat_t{}
	if err := syscall.Fstat(int(f.Fd()), now); err != nil {
		return err
	}
	if was.Uid != now.Uid || was.Gid != now.Gid {
		if err := f.Chown(int(was.Uid), int(was.Gid)); err != nil {
			return fmt.Errorf("%s belongs to user %d and group %d, and a file that takes its place would not (%w): remove it first, or give another name",
				f.name, was.Uid, was.Gid, errors.Unwrap(err))
		}
	}
	// The mode comes after the owner: a change of the owner takes bits of the mode away.
	if err := f.Chmod(old.Mode()); err != nil {
		return err
	}
	return f.copyAttributes()
}

// copyAttributes copies the extended attributes of the file that the image replaces:
// access list, label, and those of users. Only the access list must be copied, because
// it says who may use the file. The others may fail.
func (f *File) copyAttributes() error {
	const accessList, label, ofUsers = "system.posix_acl_access", "security.selinux", "user."
	names := make([]byte, attributesMax)
	n, err := unix.Llistxattr(f.name, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: f.name, Err: err}
	}
	value := make([]byte, attributesMax)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name != accessList && name != label && !strings.HasPrefix(name, ofUsers) {
			continue
		}
		n, err := unix.Lgetxattr(f.name, name, value)
		if err == nil {
			err = unix.Fsetxattr(int(f.Fd()), name, value[:n], 0)
		}
		if err != nil && name == accessList {
			return fmt.Errorf("the access list of %s cannot be kept: %w", f.name, err)
		}
	}
	return nil
}

// attributesMax is the longest list of names, and the longest value, in Linux, in bytes.
const attributesMax = 64 << 10

func (f *File) put(off int64, p []byte) error {
	for at, run := range dataRuns(p) {
		if _, err := f.WriteAt(run, off+int64(at)); err != nil {
			return f.explainSize(err)
		}
	}
	return nil
}

// explainSize adds to an error what to do if the file system takes no file of that size.
func (f *File) explainSize(err error) error {
	if errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%w: the file system of %s takes none that large (in a mount of vDisks `ovs vdisk clone` makes NAME.raw of one)", unix.EFBIG, f.name)
	}
	return err
}

func (f *File) end(size int64) error {
	if err := f.Truncate(size); err != nil {
		return f.explainSize(err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.File.Name(), f.name); err != nil {
		if errors.Is(err, unix.EPERM) && strings.HasSuffix(f.name, naming.Suffix) {
			return fmt.Errorf("%w (in a mount of vDisks `ovs vdisk clone` makes NAME.raw of one)", err)
		}
		return err
	}
	if err := f.syncName(); err != nil {
		return fmt.Errorf("%s is whole, and may have its old content after a power cut: %w", f.name, err)
	}
	return f.Close()
}

// syncName makes the image's name durable. A directory that this user may write but not
// read cannot be opened to be synced. Then all of its file system is synced.
func (f *File) syncName() error {
	dir, err := os.Open(dirOf(f.name))
	if errors.Is(err, fs.ErrPermission) {
		return unix.Syncfs(int(f.Fd()))
	}
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Abandon removes what there is of an image that did not get its name.
func (f *File) Abandon() error {
	_ = f.Close()
	if err := os.Remove(f.File.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
