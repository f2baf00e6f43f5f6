// Package systemd tells the service manager in what state this process is, and takes
// over the sockets that the manager has opened for it. If no manager has asked for that
// (see sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)), it does nothing.
package systemd
