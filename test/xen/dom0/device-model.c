/*
 * Stands where libxl expects QEMU beside an HVM guest. A guest that is loaded without firmware needs no device of a
 * PC, so all there is to do is what libxl waits for: the key `state` in xenstore, and an answer to each request at
 * the QMP socket (qemu/docs/interop/qmp-spec.txt), with the request's own id.
 * libxl starts it with the arguments of QEMU, of which it reads -xen-domid, and ends it with SIGHUP.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static const char *domain(int count, char **words)
{
	for (int i = 1; i + 1 < count; i++)
		if (!strcmp(words[i], "-xen-domid"))
			return words[i + 1];
	fputs("device-model: expected -xen-domid ID, as libxl gives it\n", stderr);
	exit(1);
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	unlink(path);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8))
		fail(path);
	return listener;
}

static void answer(FILE *in, FILE *out)
{
	char *line = NULL;
	size_t size = 0;

	fputs("{\"QMP\":{\"version\":{\"qemu\":{\"micro\":0,\"minor\":2,\"major\":7},\"package\":\"\"},\"capabilities\":[]}}\r\n", out);
	fflush(out);
	while (getline(&line, &size, in) > 0) {
		const char *id = strstr(line, "\"id\"");
		const char *digits = id ? strpbrk(id, "0123456789") : NULL;

		fprintf(out, "{\"return\":%s,\"id\":%ld}\r\n",
			strstr(line, "query-chardev") ? "[]" : "{}", digits ? atol(digits) : 0);
		fflush(out);
	}
	free(line);
}

int main(int count, char **words)
{
	const char *id = domain(count, words);
	char path[108], command[160];

	snprintf(path, sizeof path, "/var/run/xen/qmp-libxl-%s", id);
	int listener = listen_at(path);
	snprintf(command, sizeof command, "xenstore-write /local/domain/0/device-model/%s/state running", id);
	if (system(command))
		fail(command);
	for (;;) {
		int peer = accept(listener, NULL, NULL);
		if (peer < 0)
			fail("accept");
		FILE *in = fdopen(peer, "r"), *out = fdopen(dup(peer), "w");
		answer(in, out);
		fclose(in);
		fclose(out);
	}
}
