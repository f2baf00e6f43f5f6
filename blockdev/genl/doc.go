// Package genl speaks generic netlink, by which programs give orders to parts
// of the Linux kernel: messages with attributes, one socket, one question at a
// time, and the news of a multicast group.
package genl
