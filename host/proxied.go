package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"openvstorage/alba/proxy"
	"openvstorage/internal/control"
	"openvstorage/internal/disk"
	"openvstorage/internal/format"
	"openvstorage/internal/wire"
)

// BackendProxy is the kind of a data directory whose objects are in the backend of another
// process, which is reached by its proxies.
const BackendProxy = "proxy"

// proxyRecord is the file of a data directory that says in which backend its objects are: one
// line, "ovs-proxied 1 UUID CRC", of the CRC-32C of what is before it in 8 hexadecimal digits.
// It is written before anything else of the directory is made, and never changed: vDisks would
// not be found in another backend.
const (
	proxyRecord    = "proxied"
	proxyRecordMax = 256
)

func encodeProxied(id uuid.UUID) []byte {
	line := "ovs-proxied 1 " + id.String()
	return fmt.Appendf(nil, "%s %08x\n", line, format.CRC([]byte(line)))
}

func decodeProxied(b []byte) (id uuid.UUID, err error) {
	words := strings.Fields(string(b))
	if len(words) == 4 && words[0] == "ovs-proxied" && words[1] == "1" {
		if id, err = uuid.Parse(words[2]); err == nil && string(encodeProxied(id)) == string(b) {
			return id, nil
		}
	}
	if len(words) > 1 && words[0] == "ovs-proxied" && words[1] != "1" {
		return id, fmt.Errorf("it is of version %.20q, of a newer release", words[1])
	}
	return id, errors.New("it is damaged")
}

// readProxied returns the backend that a data directory's objects are in, uuid.Nil if they are in
// none of another process.
func readProxied(fsys disk.FS, dir string) (uuid.UUID, error) {
	name := filepath.Join(dir, proxyRecord)
	b, err := disk.ReadWhole(fsys, name, proxyRecordMax)
	if errors.Is(err, fs.ErrNotExist) {
		return uuid.Nil, nil
	}
	if err != nil {
		return uuid.Nil, err
	}
	id, err := decodeProxied(b)
	if err != nil {
		return uuid.Nil, fmt.Errorf("%s, which says in which backend the objects are: %w: restore it; nothing was changed", name, err)
	}
	return id, nil
}

// sharedMark is a file of a data directory whose backend other processes may use, or could once.
// That it is there says so, whatever is in it. It is never removed: their vDisks may be there yet,
// and the registry of the data directory does not know them.
const sharedMark = "shared"

// markShared reports whether other processes may have vDisks in the backend. It is durable before
// any of them can reach it.
func markShared(o openOptions, kind string) (bool, error) {
	if kind == BackendProxy {
		return true, nil
	}
	name := filepath.Join(o.dir.Path, sharedMark)
	switch _, err := o.fs.Stat(name); {
	case err == nil:
		return true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	case !o.shared:
		return false, nil
	}
	return true, disk.ReplaceWhole(o.fs, name, []byte("ovs-shared 1\n"))
}

// ProxiesMax is how many proxies may be named.
const ProxiesMax = proxy.ProxiesMax

// proxyPatience is how long a start waits for the first proxy.
const proxyPatience = 30 * time.Second

// openProxies opens the backend of another process, and remembers which it is.
func (e *embedded) openProxies(ctx context.Context, o openOptions) error {
	if o.alba.set() {
		return fmt.Errorf("data directory %s has the backend %q, and flags of %q were given: leave them out", o.dir.Path, BackendProxy, BackendALBA)
	}
	if len(o.proxies) == 0 {
		return fmt.Errorf("the objects of data directory %s are in the backend of another process: give --proxies SOCKET, where its proxy is", o.dir.Path)
	}
	id, err := readProxied(o.fs, o.dir.Path)
	if err != nil {
		return err
	}
	opt := proxy.Options{Store: id, Proxies: proxyTargets(o.proxies), Turned: func(name string, why error) {
		o.logger.Warn("a proxy did not answer", "proxy", name, "err", why)
	}}
	if id == uuid.Nil {
		if opt.Store, err = meet(ctx, opt); err != nil {
			return err
		}
		if err := disk.ReplaceWhole(o.fs, filepath.Join(o.dir.Path, proxyRecord), encodeProxied(opt.Store)); err != nil {
			return err
		}
	}
	c, err := proxy.NewClient(opt)
	if err != nil {
		return err
	}
	e.backend = c
	return reach(ctx, c, opt.Store)
}

// meet asks the proxies which backend they are of.
func meet(ctx context.Context, opt proxy.Options) (uuid.UUID, error) {
	c, err := proxy.NewClient(opt)
	if err != nil {
		return uuid.Nil, err
	}
	defer c.Close()
	if err := reach(ctx, c, uuid.Nil); err != nil {
		return uuid.Nil, err
	}
	return c.Identify(ctx)
}

// reach waits for a proxy.
func reach(ctx context.Context, c *proxy.Client, store uuid.UUID) error {
	ctx, cancel := context.WithTimeout(ctx, proxyPatience)
	defer cancel()
	err := c.Ready(ctx)
	if err != nil && store != uuid.Nil {
		return fmt.Errorf("backend %s: %w: is the process that has it up (`ovs up --proxy SOCKET`), and do --proxies name its sockets?", store, err)
	}
	if err != nil {
		return fmt.Errorf("%w: is a process with a backend up (`ovs up --proxy SOCKET`), and do --proxies name its sockets?", err)
	}
	return nil
}

// proxyTargets are the proxies on unix sockets.
func proxyTargets(sockets []string) (list []proxy.Target) {
	for _, path := range sockets {
		list = append(list, proxy.Target{Name: path, Dial: func(context.Context) (wire.DialOptions, error) {
			return wire.DialOptions{Dial: func(ctx context.Context) (net.Conn, error) { return dialUnix(ctx, path) }}, nil
		}})
	}
	return list
}

// dialUnix connects to a socket, however long its path is.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	address, done, err := control.SocketAddress(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", address)
}

// ProxyStats asks the proxy on a socket what it did, by namespace.
func ProxyStats(ctx context.Context, socket string) (id uuid.UUID, list []proxy.NamespaceStats, err error) {
	c, err := proxy.NewClient(proxy.Options{Proxies: proxyTargets([]string{socket}), Wait: 3 * time.Second})
	if err != nil {
		return id, nil, err
	}
	defer c.Close()
	if id, err = c.Identify(ctx); err == nil {
		list, err = c.Stats(ctx)
	}
	return id, list, err
}
