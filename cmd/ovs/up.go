package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	albahere "openvstorage/alba/embedded"
	"openvstorage/cmd/ovs/clustercmd"
	"openvstorage/cmd/ovs/proxycmd"
	"openvstorage/fusefs"
	"openvstorage/fusefs/transport"
	"openvstorage/host"
	"openvstorage/internal/control"
	"openvstorage/internal/size"
)

// Defaults and limits of flags.
const (
	writeBufferDefault = 2 * size.GiB
	writeBufferMin     = 64 * size.MiB
	mapCacheDefault    = 256 * size.MiB
	mapCacheMin        = 16 * size.MiB
	nbdMemoryDefault   = size.GiB
	nbdMemoryMin       = 64 * size.MiB
	uploadsMax         = 256
)

// upFlags are the flags of `ovs up`.
type upFlags struct {
	host.Options
	fuse     fuseWays
	scrub    period
	readWait period // 0: for ever
	tls      tlsMode
	logLevel slog.Level
}

// upCommand is `ovs up`: its flags, and the lines that it prints when it has started.
type upCommand struct{ *app }

func (u upCommand) command() *cobra.Command {
	f := upFlags{logLevel: slog.LevelInfo, Options: host.Options{
		WriteBuffer: writeBufferDefault, MapCache: mapCacheDefault, NBDMemory: nbdMemoryDefault, NBDClients: 1024, Uploads: 4,
	}}
	c := &cobra.Command{
		Use:   "up --data DIR",
		Short: "serve the vDisks of a data directory, in the foreground",
		Long: `ovs up serves the vDisks of a data directory over NBD and, with --mount, as files,
and manages them.

It makes the directory if it is absent or empty, prints one line for each
service and then "ready", and runs until SIGINT or SIGTERM, which stop it
cleanly. A second signal ends it at once: nothing acknowledged is lost, but the
next start has to look at more.`,
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := u.directory()
			if err != nil {
				return err
			}
			if c.Flags().Changed("asds") && f.ALBA.ASDs == 0 {
				return usagef("%s: --asds: give 1 to %d", c.CommandPath(), albahere.MaxASDs)
			}
			if err := f.check(c.CommandPath()); err != nil {
				return err
			}
			if dir, err = filepath.Abs(dir); err != nil {
				return err
			}
			if err := f.socketsFor(c.CommandPath(), dir); err != nil {
				return err
			}
			if f.Mount != "" { // absolute, as errors and attachments name it to other processes
				if f.Mount, err = filepath.Abs(f.Mount); err != nil {
					return err
				}
			}
			f.Dir, f.Release, f.Logger, f.Loop = dir, release, u.logger(f.logLevel), runLoop
			f.Ways, f.ALBA.Scrub, f.ReadWait = f.fuse.ways, time.Duration(f.scrub), time.Duration(f.readWait)
			f.Announce, f.Ready = u.announce, func() error { return u.announceReady(dir) }
			return host.Serve(c.Context(), f.Options)
		},
	}
	f.add(c)
	return c
}

func (f *upFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.NBDUnix, "nbd-unix", "", "NBD unix socket `path` (default nbd.sock in --socket-dir)")
	flags.StringVar(&f.SocketDir, "socket-dir", "", "make the sockets in this `directory`, and links to them in the data directory: for one with a path of more than 98 bytes, which leave no room for the name of a socket (default: the data directory)")
	_ = c.MarkFlagDirname("socket-dir")
	flags.StringSliceVar(&f.NBDTCP, "nbd-tcp", nil, "serve NBD on this TCP `address` too; may be given again")
	flags.BoolVar(&f.Insecure, "insecure", false, "allow TCP addresses that other machines can reach even if NBD does not require TLS with certificates of clients: nothing is encrypted, or nobody is asked who they are; with --listen, take connections of hosts without TLS too")
	f.addTLS(c)
	clustercmd.AddUpFlags(c, &f.Cluster)
	flags.StringVar(&f.Metrics, "metrics", "", "serve Prometheus metrics on this TCP `address`, path /metrics")
	flags.Var(&f.WriteBuffer, "write-buffer", fmt.Sprintf("disk space for writes that are not in the backend yet, and for reads; at least %v", writeBufferMin))
	flags.Var(&f.MapCache, "map-cache", fmt.Sprintf("memory for the maps of all vDisks; at least %v", mapCacheMin))
	flags.Var(&f.NBDMemory, "nbd-memory", fmt.Sprintf("memory for NBD clients, beside 1 MiB that each may always have; at least %v", nbdMemoryMin))
	flags.IntVar(&f.NBDClients, "nbd-clients", f.NBDClients, "NBD connections at once, `n` at most; a quarter is kept for this machine, TCP listeners share the rest, and one address has half of that")
	flags.IntVar(&f.Uploads, "uploads", f.Uploads, "put `n` SCOs to the backend side by side, each of up to 16 MiB in memory")
	flags.Var(&f.readWait, "read-wait", "fail a read after this `time`, such as 90s or 1h, if all the while too few disks answer to make what it reads; 0 for at once (default: it waits until they do)")
	flags.StringVar(&f.Mount, "mount", "", "mount the vDisks as files NAME.raw on this empty `directory`, by FUSE")
	flags.BoolVar(&f.AllowOther, "allow-other", false, "let other users than the one of this process into the mount")
	flags.Var(&f.fuse, "fuse", "`way` of the mount's requests: ring (an io_uring; as root, echo Y > /sys/module/fuse/parameters/enable_uring), device, or auto: ring if the kernel offers it")
	flags.Var(&f.FUSEMemory, "fuse-memory", fmt.Sprintf("memory for requests of the mount that wait for something, and for its rings; at least %v (default %v, or what its rings need, if more)", size.Bytes(fusefs.MemoryMin), size.Bytes(transport.MemoryDefault)))
	flags.Lookup("fuse-memory").DefValue = "" // the text above says it
	flags.StringVar(&f.Backend, "backend", "", "`kind` of backend of a new data directory: alba, local, or proxy: that of another process (default alba)")
	proxycmd.AddUpFlags(c, &f.Options)
	f.addALBA(flags)
	flags.BoolVar(&f.ALBA.AllowUnmounted, "allow-unmounted", false, "make what is new, the data directory or ASDs, also in directories that look like mount points with nothing mounted")
	flags.BoolVar(&f.AcceptOlder, "accept-older", false, "go on with a data directory that is an older copy than its disks have seen, as no newer one is left; nothing is deleted on disks until 'ovs alba backend resume-deletion'")
	flags.TextVar(&f.logLevel, "log-level", f.logLevel, "log what is of this `level` and what is worse: debug, info, warn, error")
}

// check refuses flags that cannot work, before anything is opened or made.
func (f *upFlags) check(command string) error {
	if f.WriteBuffer < writeBufferMin {
		return usagef("%s: --write-buffer %v is too small; give it at least %v", command, f.WriteBuffer, writeBufferMin)
	}
	if f.MapCache < mapCacheMin {
		return usagef("%s: --map-cache %v is too small; give it at least %v", command, f.MapCache, mapCacheMin)
	}
	if f.NBDMemory < nbdMemoryMin {
		return usagef("%s: --nbd-memory %v is too small; give it at least %v", command, f.NBDMemory, nbdMemoryMin)
	}
	if f.NBDClients < 1 {
		return usagef("%s: --nbd-clients %d: nobody could connect; give it at least 1", command, f.NBDClients)
	}
	if f.Uploads < 1 || f.Uploads > uploadsMax {
		return usagef("%s: --uploads %d: give it 1 to %d", command, f.Uploads, uploadsMax)
	}
	if f.Backend != "" && f.Backend != host.BackendALBA && f.Backend != host.BackendLocal && f.Backend != host.BackendProxy {
		return usagef("%s: --backend %q: give alba, local or proxy", command, f.Backend)
	}
	if err := proxycmd.CheckUp(&f.Options); err != nil {
		return usagef("%s: %w", command, err)
	}
	if err := f.checkALBA(command); err != nil {
		return err
	}
	if f.AllowOther && f.Mount == "" {
		return usagef("%s: --allow-other says who may use the mount; give --mount DIR too", command)
	}
	if f.fuse.set && f.Mount == "" {
		return usagef("%s: --fuse is about the mount; give --mount DIR too", command)
	}
	if f.FUSEMemory != 0 && f.Mount == "" {
		return usagef("%s: --fuse-memory is about the mount; give --mount DIR too", command)
	}
	if f.FUSEMemory != 0 && int64(f.FUSEMemory) < fusefs.MemoryMin {
		return usagef("%s: --fuse-memory %v is too small; give it at least %v", command, f.FUSEMemory, size.Bytes(fusefs.MemoryMin))
	}
	if err := f.checkTLS(command); err != nil {
		return err
	}
	if err := clustercmd.CheckUp(&f.Options); err != nil {
		return usagef("%s: %w", command, err)
	}
	return f.checkAddresses(command)
}

// socketsFor fills in where the sockets are. It refuses a path of the NBD socket that is too long
// for clients. The path of the management socket may be longer: our own commands find it anyway.
func (f *upFlags) socketsFor(command, data string) (err error) {
	dir := data
	if f.SocketDir != "" {
		if f.SocketDir, err = filepath.Abs(f.SocketDir); err != nil {
			return err
		}
		dir = f.SocketDir
	}
	if f.NBDUnix == "" {
		f.NBDUnix = filepath.Join(dir, host.NBDSocketName)
	}
	if f.NBDUnix, err = filepath.Abs(f.NBDUnix); err != nil {
		return err
	}
	if n := len(f.NBDUnix); n > control.PathMax {
		return usagef("%s: socket path %s is too long: it has %d bytes, and NBD clients take %d; give --socket-dir a shorter directory", command, f.NBDUnix, n, control.PathMax)
	}
	return nil
}

// announce prints a line for one service of `ovs up`. With --json it is a line too: programs read
// lines while the process runs.
func (u upCommand) announce(s host.Service) error {
	if u.json {
		return json.NewEncoder(u.stdout).Encode(s)
	}
	_, err := fmt.Fprintf(u.stdout, "%-8s %s\n", s.Service, s.Address)
	return err
}

// announceReady prints the last line of a start.
func (u upCommand) announceReady(dir string) error {
	if u.json {
		return json.NewEncoder(u.stdout).Encode(map[string]any{"ready": true, "data": dir})
	}
	_, err := fmt.Fprintln(u.stdout, "ready")
	return err
}

// logger writes what `ovs up` logs.
func (u upCommand) logger(level slog.Level) *slog.Logger {
	opt := &slog.HandlerOptions{Level: level}
	if u.json {
		return slog.New(slog.NewJSONHandler(u.stderr, opt))
	}
	return slog.New(slog.NewTextHandler(u.stderr, opt))
}
