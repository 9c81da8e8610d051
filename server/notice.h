/* server/notice.h - what everybody who meets the product is told, in one wording. */
#ifndef HG_SERVER_NOTICE_H
#define HG_SERVER_NOTICE_H

#define HG_NOTICE_RESEARCH                                                                         \
    "Research use only. Not a medical device. Not cleared or approved by any authority. Output "   \
    "must not be used for diagnosis or treatment."

#endif
