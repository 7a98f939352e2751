// The same load as dcs_load, against etcd: its own server and its own client, three processes on
// loopback with mutual TLS for clients and peers. Only for the comparison.
//
//	etcd_bench pki DIR                                  a CA and one certificate for all
//	etcd_bench serve DIR PKI NAME CLIENT_PORT PEER_PORT NAME=PORT,NAME=PORT,...
//	etcd_bench load PKI PORT[,PORT...] put|get|mix DEPTH MS PID[,PID...]
//
// `load` goes to the leader, prints the line that dcs_load prints.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

const (
	valueBytes = 100
	keys       = 10000
	warmUp     = 500 * time.Millisecond
	ticksPerS  = 100 // of /proc/PID/stat
)

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd_bench:", err)
		os.Exit(1)
	}
}

// ---- certificates ----

func writePEM(path, kind string, der []byte) {
	check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func pki(dir string) {
	check(os.MkdirAll(dir, 0o700))
	caKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER := must(x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey))
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	writePEM(filepath.Join(dir, "ca.crt"), "CERTIFICATE", caDER)
	writePEM(filepath.Join(dir, "node.crt"), "CERTIFICATE",
		must(x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)))
	writePEM(filepath.Join(dir, "node.key"), "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))
}

func tlsInfo(dir string) transport.TLSInfo {
	return transport.TLSInfo{
		CertFile: filepath.Join(dir, "node.crt"), KeyFile: filepath.Join(dir, "node.key"),
		TrustedCAFile: filepath.Join(dir, "ca.crt"), ClientCertAuth: true,
	}
}

// ---- one member ----

func at(port string) url.URL {
	return url.URL{Scheme: "https", Host: "127.0.0.1:" + port}
}

// Everything is etcd's default, its timing too (100 ms and 1000 ms), but for the logs.
func serve(dir, pkiDir, name, clientPort, peerPort, members string) {
	c := embed.NewConfig()
	c.Dir, c.Name = dir, name
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{at(clientPort)}, []url.URL{at(clientPort)}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{at(peerPort)}, []url.URL{at(peerPort)}
	c.ClientTLSInfo, c.PeerTLSInfo = tlsInfo(pkiDir), tlsInfo(pkiDir)
	var initial []string
	for _, m := range strings.Split(members, ",") {
		who, port, _ := strings.Cut(m, "=")
		u := at(port)
		initial = append(initial, who+"="+u.String())
	}
	c.InitialCluster = strings.Join(initial, ",")
	c.LogLevel = "error"
	e := must(embed.StartEtcd(c))
	<-e.Server.ReadyNotify()
	fmt.Println("ready")
	check(<-e.Err())
}

// ---- load ----

func cpuMs(pids []string) (ms float64) {
	for _, pid := range pids {
		stat := string(must(os.ReadFile("/proc/" + pid + "/stat")))
		fields := strings.Fields(stat[strings.LastIndex(stat, ")")+2:])
		for _, f := range fields[11:13] {
			ms += must(strconv.ParseFloat(f, 64)) * 1000 / ticksPerS
		}
	}
	return ms
}

func leader(tlsConfig *tls.Config, ports []string) *clientv3.Client {
	for {
		for _, port := range ports {
			u := at(port)
			c := must(clientv3.New(clientv3.Config{
				Endpoints: []string{u.String()}, TLS: tlsConfig,
				DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
			}))
			s, err := c.Status(context.Background(), u.String())
			if err == nil && s.Leader == s.Header.MemberId {
				return c
			}
			check(c.Close())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func one(c *clientv3.Client, mode string, n int) error {
	key := fmt.Sprintf("bench/%08d", n*7919%keys)
	var err error
	if mode == "get" || (mode == "mix" && n%10 != 0) {
		_, err = c.Get(context.Background(), key)
	} else {
		_, err = c.Put(context.Background(), key, strings.Repeat("v", valueBytes))
	}
	return err
}

type worker struct {
	tookUs []int64
	errors int
}

func run(c *clientv3.Client, mode string, depth int, forTime time.Duration) (all []int64, errors int) {
	workers := make([]worker, depth)
	var wait sync.WaitGroup
	end := time.Now().Add(forTime)
	for i := range workers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			w := &workers[i]
			for n := i; ; n += depth {
				began := time.Now()
				if began.After(end) {
					return
				}
				if one(c, mode, n) != nil {
					w.errors++
				} else {
					w.tookUs = append(w.tookUs, time.Since(began).Microseconds())
				}
			}
		}()
	}
	wait.Wait()
	for i := range workers {
		all = append(all, workers[i].tookUs...)
		errors += workers[i].errors
	}
	slices.Sort(all)
	return all, errors
}

func load(pkiDir, ports, mode, depthText, msText, pidText string) {
	info := tlsInfo(pkiDir)
	c := leader(must(info.ClientConfig()), strings.Split(ports, ","))
	depth, ms := must(strconv.Atoi(depthText)), must(strconv.Atoi(msText))
	pids := strings.Split(pidText, ",")
	_, _ = run(c, mode, depth, warmUp)
	before, began := cpuMs(pids), time.Now()
	took, errors := run(c, mode, depth, time.Duration(ms)*time.Millisecond)
	seconds, cpu := time.Since(began).Seconds(), cpuMs(pids)-before
	if len(took) == 0 {
		check(fmt.Errorf("no answer"))
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"system": "etcd", "mode": mode, "depth": depth, "ops": len(took), "errors": errors,
		"per_s": float64(len(took)) / seconds, "p50_us": took[len(took)/2], "p99_us": took[len(took)*99/100],
		"max_us": took[len(took)-1], "server_cpu_us_per_op": cpu * 1000 / float64(len(took)),
	}))
}

func main() {
	a := os.Args
	switch {
	case len(a) == 3 && a[1] == "pki":
		pki(a[2])
	case len(a) == 8 && a[1] == "serve":
		serve(a[2], a[3], a[4], a[5], a[6], a[7])
	case len(a) == 8 && a[1] == "load":
		load(a[2], a[3], a[4], a[5], a[6], a[7])
	default:
		fmt.Fprintln(os.Stderr, "usage: etcd_bench pki|serve|load ...")
		os.Exit(2)
	}
}
